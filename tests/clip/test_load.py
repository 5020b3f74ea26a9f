"""What people bring as a CLIP: read right, or refused with the reason, before the weights are loaded."""

import argparse
import json
import random
import shlex

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from fvlfp.clip.build import build_model
from fvlfp.clip.encoder import Encoder
from fvlfp.clip.lookup import look_up
from fvlfp.clip.weights import load_weights
from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.runs.deployment import config_of
from fvlfp.runs.train import load_encoder

LORA = {"base_model.model.visual.proj.lora_A": torch.ones(1)}
TEXTS = ["a photo of a dog", "a smiling face with a hat"]


@pytest.fixture
def folder(tiny_files, tmp_path):
    """A folder as `local-dir:` takes it: weights and open_clip_config.json with another transform."""
    config = {
        "model_cfg": json.loads(tiny_files[0].read_text()),
        "preprocess_cfg": {"mean": 0.5, "std": 0.25},
    }
    config["preprocess_cfg"] |= {"interpolation": "bilinear", "resize_mode": "squash"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(tiny_files[1].read_bytes())
    return tmp_path


def load(tiny_files, weights, **more):
    return Encoder.load(
        "tiny-test-clip", pretrained=str(weights), model_config=tiny_files[0], device="cpu", **more
    )


def same(encoder, other):
    mine, theirs = (dict(e.model.state_dict()) for e in (encoder, other))
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


# F4: an option that would not be used


@pytest.mark.parametrize("model", ["toyclip", "local-dir:there", "hf-hub:who/what"])
@pytest.mark.parametrize("option", ["pretrained", "model_config"])
def test_an_option_that_would_not_be_used_is_refused(model, option):
    with pytest.raises(InputError, match=f"{option} = 'no_such' would not be used: '{model}' brings its own"):
        Encoder.load(model, **{option: "no_such"})


def test_training_and_a_node_refuse_it_as_well():
    for key in ("pretrained", "model_config"):
        with pytest.raises(InputError, match="would not be used"):
            load_encoder(Config.make("smoke", **{key: "no_such"}))


@pytest.mark.parametrize("model", ["hf-hub:some/body", "local-dir:/etc"])
def test_a_run_cannot_send_a_node_to_a_place(model):
    with pytest.raises(InputError, match="names a place for the model"):
        config_of({"agreed": json.dumps({"model": model})}, {})


def test_a_config_of_another_name_is_refused(tiny_files):
    with pytest.raises(
        InputError, match=r"'RN50', but tiny-test-clip.json defines the model 'tiny-test-clip'"
    ):
        Encoder.load("RN50", pretrained=str(tiny_files[1]), model_config=tiny_files[0])


def test_a_file_called_like_a_tag_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"'openai' is a tag of ViT-B-16-quickgelu and a file here: write ./openai"
    ):
        look_up("ViT-B-16-quickgelu", "openai")


@pytest.mark.parametrize(
    ("pretrained", "said"),
    [
        ("no/such.pt", "no weights file no/such.pt$"),
        ("weigths.safetensors", "no weights file weigths.safetensors$"),
        ("laion2b_s34b_b88", "; did you mean 'laion2b_s34b_b88k'"),
        ("x" * 5000, "; it has [0-9]+ tags$"),
        (".", "is a folder: give a file in it, or all of it as model = local-dir:."),
    ],
)
def test_a_mistyped_path_gets_a_short_message(pretrained, said):
    with pytest.raises(InputError, match=said):
        Encoder.load("ViT-B-16", pretrained=pretrained)


# F12: the transform, the activation, and who states them


def test_the_config_beside_the_weights_states_transform_and_activation(folder, tiny_files):
    found = load(tiny_files, folder / "model.safetensors")
    steps = found.transform.transforms
    assert list(steps[-1].mean) == [0.5] * 3 and list(steps[-1].std) == [0.25] * 3
    assert steps[0].size == (16, 16) and steps[0].interpolation.value == "bilinear"
    said = found.provenance
    assert said["transform_origin"] == "open_clip_config.json beside the weights" == said["activation_origin"]
    assert "mean=(0.5, 0.5, 0.5)" in said["transform"] and str(folder) not in json.dumps(said)


def test_what_nobody_states_is_called_assumed(encoder):
    assert encoder.provenance["transform_origin"] == "nobody: OpenAI's is assumed"


def test_given_steps_win_and_are_named(folder, tiny_files):
    found = load(tiny_files, folder / "model.safetensors", preprocess={"mean": "0,0.5,1", "std": None})
    assert list(found.transform.transforms[-1].mean) == [0, 0.5, 1]
    origin = "mean as given by the user; the rest: open_clip_config.json beside the weights"
    assert found.provenance["transform_origin"] == origin
    for bad in ({"mean": "0.5,0.5"}, {"std": "0"}, {"mean": "122"}, {"resize": "crop"}, {"mean": "nan"}):
        with pytest.raises(InputError, match=next(iter(bad))):
            load(tiny_files, folder / "model.safetensors", preprocess=bad)


def test_a_file_of_a_known_model_gets_the_transform_that_all_its_weights_share(tmp_path):
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(b"")
    siglip = look_up("ViT-B-16-SigLIP", str(weights)).preprocess
    assert (siglip.mean, siglip.resize) == ((0.5,) * 3, "squash")
    assert siglip.origin == "that of all weights that open_clip knows for ViT-B-16-SigLIP"
    assert look_up("ViT-L-14", str(weights)).preprocess.origin.startswith("nobody")  # its tags differ


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quick_gelu": True}, "says quick_gelu = True, but tiny-test-clip has False"),
        ({"text_cfg": {"heads": 4}}, r"says text_cfg.heads = 4, but tiny-test-clip has 2"),
        ({"vision_cfg": {"head_width": 8}}, r"says vision_cfg.head_width = 8, but tiny-test-clip has 16"),
    ],
)
def test_what_no_shape_tells_is_compared_with_the_config_beside(folder, tiny_files, change, said):
    file = folder / "open_clip_config.json"
    stated = json.loads(file.read_text())
    for key, value in change.items():
        own = stated["model_cfg"]
        own[key] = own[key] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(stated))
    with pytest.raises(InputError, match=said):
        load(tiny_files, folder / "model.safetensors")


def test_another_activation_is_another_model_to_the_cache(tiny_files, tmp_path):
    """H6: features of one architecture may not be taken for another's."""
    changed = json.loads(tiny_files[0].read_text()) | {"quick_gelu": True}
    (tmp_path / "tiny-test-clip.json").write_text(json.dumps(changed))
    found = [
        Encoder.load("tiny-test-clip", pretrained=str(tiny_files[1]), model_config=config, device="cpu")
        for config in (tiny_files[0], tmp_path / "tiny-test-clip.json", tiny_files[0])
    ]
    keys = [e.provenance["config_sha256"] for e in found]
    assert keys[0] == keys[2] != keys[1]
    assert [e.provenance["activation"] for e in found] == ["gelu", "quick_gelu", "gelu"]


# F11: folders, hub names


def test_local_dir_is_the_model_that_lies_there(folder, encoder):
    found = Encoder.load(f"local-dir:{folder}", device="cpu")
    assert same(found, encoder)
    torch.testing.assert_close(found.encode_texts(TEXTS), encoder.encode_texts(TEXTS))
    assert found.provenance["model"] == f"local-dir:{folder.name}"
    (folder / "b.safetensors").write_bytes(b"")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    with pytest.raises(
        InputError, match=r"must hold one weights file, but found: a.safetensors, b.safetensors"
    ):
        Encoder.load(f"local-dir:{folder}")
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(InputError, match=r"holds neither open_clip_config.json with a model_cfg nor"):
        Encoder.load(f"local-dir:{folder}")
    with pytest.raises(InputError, match="no folder"):
        Encoder.load("local-dir:nowhere")


def test_a_sharded_folder_and_a_link_into_a_cache(folder, tiny_files, tmp_path_factory):
    """As the hub's cache keeps files: the config beside the link counts, not beside its target."""
    link = tmp_path_factory.mktemp("snapshot") / "model.safetensors"
    link.symlink_to(folder / "model.safetensors")
    assert load(tiny_files, link).provenance["transform_origin"].startswith("nobody")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="must hold one weights file, but found: model-00001"):
        Encoder.load(f"local-dir:{folder}")


def test_openai_writes_the_name_with_a_slash():
    with pytest.raises(InputError, match=r"no model 'ViT-B/32'; did you mean 'ViT-B-32'\?"):
        Encoder.load("ViT-B/32", pretrained="openai")


def test_hub_and_tags_offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"cannot read open_clip_config.json of hf-hub:no/body: .*local-dir"):
        Encoder.load("hf-hub:no/body")
    with pytest.raises(InputError, match="cannot download the weights of openai of ViT-B-16-quickgelu: "):
        look_up("ViT-B-16-quickgelu", "openai").fetch()


# F10, F26, H: checkpoints in other clothes


@pytest.fixture(scope="module")
def state(tiny_files):
    return load_file(tiny_files[1])


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda s: s, "as they are"),
        (lambda s: {"state_dict": s, "epoch": 3}, "taken from 'state_dict'"),
        (lambda s: {"model": s, "args": {"lr": 1.0}}, "taken from 'model'"),
        (
            lambda s: {"model_state_dict": s, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}},
            "taken from 'model_state_dict'",
        ),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, "prefix 'module.' stripped"),
        (lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()}, "prefix 'module._orig_mod.' stripped"),
        (
            lambda s: {"state_dict": {f"clip.{k}": v for k, v in s.items()} | {"head.weight": torch.ones(2)}},
            "taken from 'state_dict'; prefix 'clip.' stripped, 1 tensors of other parts left out",
        ),
        (lambda s: {k: v.half() for k, v in s.items()} | {"vocab_size": torch.tensor(49408)}, "as they are"),
    ],
    ids=["plain", "state_dict", "model", "optimizer", "module", "compiled", "lightning", "openai"],
)
def test_checkpoints_in_other_clothes(tiny_files, encoder, state, tmp_path, wrap, said):
    torch.save(wrap(state), tmp_path / "w.pt")
    found = load(tiny_files, tmp_path / "w.pt")
    assert found.provenance["weights_read"] == said
    torch.testing.assert_close(found.encode_texts(TEXTS), encoder.encode_texts(TEXTS), atol=2e-3, rtol=0)


def program(tiny_files, state, path):
    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logit_scale = torch.nn.Parameter(torch.ones([]))

        def forward(self, x):
            return x * self.logit_scale

    torch.jit.save(torch.jit.script(Small()), path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda f, s, p: torch.save({"state_dict": s, "args": argparse.Namespace(lr=1)}, p),
            "argparse.Namespace",
        ),
        (lambda f, s, p: torch.save(torch.nn.Linear(2, 2), p), "holds more than weights"),
        (program, "is a TorchScript archive: a program.*torch.jit.load"),
        (lambda f, s, p: torch.save({"ema": s, "model": s}, p), "several CLIPs, under ema, model"),
        (lambda f, s, p: torch.save({f"{a}.{k}": s[k] for a in "tu" for k in s}, p), r"under 't\.', 'u\.'"),
        (lambda f, s, p: torch.save({"visual.conv1.weight": torch.ones(2)}, p), "no tensor in it is called"),
        (lambda f, s, p: torch.save([1, 2], p), "no tensor in it is called logit_scale"),
        (lambda f, s, p: torch.save(s | {"logit_scale": torch.tensor(float("nan"))}, p), "not finite"),
        (
            lambda f, s, p: torch.save(s | {"visual.positional_embedding": torch.ones(10, 32)}, p),
            r"shape \(10, 32\), not \(5, 32\); they were trained for another image size",
        ),
        (lambda f, s, p: torch.save({k: s[k] for k in s if "ln_final" not in k}, p), "ln_final.* is missing"),
        (lambda f, s, p: torch.save(s | {"lora_A": torch.ones(1)}, p), "lora_A is not known there"),
        (
            lambda f, s, p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1"),
            "no whole PyTorch file",
        ),
        (lambda f, s, p: p.write_bytes(b""), "no whole PyTorch file"),
        # seen in public issues: open_clip 998 and 1078, 983 and 1067, peft, bitsandbytes, Long-CLIP
        (lambda f, s, p: torch.save({"state_dict": s, "loss": np.float64(1)}, p), "numpy.*scalar"),
        (
            lambda f, s, p: torch.save(s | {"positional_embedding": torch.ones(16, 32)}, p),
            r"positional_embedding has the shape \(16, 32\), not \(24, 32\); .* or text length",
        ),
        (
            lambda f, s, p: torch.save({f"base_model.model.{k}": s[k] for k in s} | LORA, p),
            "visual.proj.lora_A is not known there",
        ),
        (
            lambda f, s, p: torch.save(s | {"text_projection": s["text_projection"].to(torch.int8)}, p),
            "text_projection is torch.int8: quantised weights are not read",
        ),
        (lambda f, s, p: torch.save(s | {"positional_embedding_res": torch.ones(2)}, p), "_res is not known"),
    ],
    ids=[
        *("namespace", "module", "torchscript", "ema", "two", "tower", "list", "nan", "image-size"),
        *("missing", "lora", "lfs", "empty", "numpy-scalar", "context", "peft", "int8", "longclip"),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit")  # it only makes a file here
def test_what_is_no_weights_of_this_model_is_refused(tiny_files, state, tmp_path, make, said):
    make(tiny_files, state, tmp_path / "w.pt")
    with pytest.raises(InputError, match=said):
        load(tiny_files, tmp_path / "w.pt")


@pytest.mark.parametrize("kind", ["dict", "module"])
def test_the_way_to_convert_works(tiny_files, encoder, state, tmp_path, monkeypatch, kind):
    """A dict with pickled extras, and a whole module as WiSE-FT saves it."""
    held = {"state_dict": state, "args": argparse.Namespace(lr=1)}
    torch.save(held if kind == "dict" else encoder.model, tmp_path / "w.pt")
    with pytest.raises(InputError) as refused:
        load(tiny_files, tmp_path / "w.pt")
    command = shlex.split(str(refused.value).split("save the weights alone: ")[1])
    monkeypatch.chdir(tmp_path)
    exec(command[-1], {})
    assert same(load(tiny_files, tmp_path / "weights.safetensors"), encoder)


@pytest.mark.parametrize("kind", ["safetensors", "pt", "pt-old"])
def test_damaged_weights_never_end_in_a_traceback(tiny_files, state, tmp_path, kind):
    """M10: 60 flips and cuts; refused with a message, or loaded where the damage hit only a number."""
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "pt")
    model = build_model("tiny", json.loads(tiny_files[0].read_text()))
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for i in range(20):
        damaged = bytearray(whole)
        if i % 2:
            del damaged[rng.randrange(len(whole)) if i % 4 == 1 else rng.randrange(3000) :]
        else:
            for _ in range(8):
                place = -rng.randrange(1, 9000) if kind == "pt" else rng.randrange(3000)
                damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            load_weights(model, "tiny", path)
        except InputError as error:
            assert "w." in str(error)
            refused += 1
    assert refused >= 15


# Hugging Face's CLIPModel


def as_transformers(state):
    """The tensors of the tiny model as transformers' CLIPModel names them; written backwards on purpose."""
    out = {"logit_scale": state["logit_scale"]}
    out["visual_projection.weight"] = state["visual.proj"].T
    out["text_projection.weight"] = state["text_projection"].T
    v, t = "vision_model.", "text_model."
    out[v + "embeddings.class_embedding"] = state["visual.class_embedding"]
    out[v + "embeddings.patch_embedding.weight"] = state["visual.conv1.weight"]
    out[v + "embeddings.position_embedding.weight"] = state["visual.positional_embedding"]
    out[t + "embeddings.token_embedding.weight"] = state["token_embedding.weight"]
    out[t + "embeddings.position_embedding.weight"] = state["positional_embedding"]
    out[t + "embeddings.position_ids"] = torch.arange(24)[None]
    for theirs, ours in (
        (v + "pre_layrnorm", "visual.ln_pre"),
        (v + "post_layernorm", "visual.ln_post"),
        (t + "final_layer_norm", "ln_final"),
    ):
        for kind in ("weight", "bias"):
            out[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    parts["self_attn.out_proj"] = "attn.out_proj"
    for tower, ours, n in ((v, "visual.transformer", 2), (t, "transformer", 3)):
        for i in range(n):
            layer, block = f"{tower}encoder.layers.{i}.", f"{ours}.resblocks.{i}."
            for kind in ("weight", "bias"):
                for theirs, mine in parts.items():
                    out[f"{layer}{theirs}.{kind}"] = state[f"{block}{mine}.{kind}"]
                for one, rows in zip("qkv", state[f"{block}attn.in_proj_{kind}"].chunk(3), strict=True):
                    out[f"{layer}self_attn.{one}_proj.{kind}"] = rows
    return {key: value.contiguous().clone() for key, value in out.items()}


HF_CONFIG = {
    "model_type": "clip",
    "projection_dim": 16,
    "vision_config": {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
        **{"patch_size": 8, "image_size": 16, "hidden_act": "gelu"},
    },
    "text_config": {
        **{"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128},
        **{"max_position_embeddings": 24, "vocab_size": 49408, "hidden_act": "gelu"},
    },
}


@pytest.fixture
def saved_by_transformers(state, tmp_path):
    save_file(as_transformers(state), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(HF_CONFIG))
    steps = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2, "do_center_crop": True}
    steps |= {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(steps))
    return tmp_path


def test_a_clipmodel_of_transformers_is_converted(tiny_files, encoder, saved_by_transformers):
    file = saved_by_transformers / "model.safetensors"
    for found in (load(tiny_files, file), Encoder.load(f"local-dir:{saved_by_transformers}", device="cpu")):
        assert same(found, encoder)
        assert found.provenance["weights_read"] == "names of transformers' CLIPModel converted"
        assert found.provenance["transform_origin"] == "preprocessor_config.json beside the weights"
        assert list(found.transform.transforms[-1].mean) == [0.5] * 3
        assert found.provenance["activation_origin"] == "config.json beside the weights"


def test_its_config_is_compared_and_its_activation_known(tiny_files, saved_by_transformers):
    quick = json.loads(json.dumps(HF_CONFIG).replace('"gelu"', '"quick_gelu"'))
    (saved_by_transformers / "config.json").write_text(json.dumps(quick))
    with pytest.raises(InputError, match=r"config.json beside the weights says quick_gelu = True"):
        load(tiny_files, saved_by_transformers / "model.safetensors")
    found = Encoder.load(f"local-dir:{saved_by_transformers}", device="cpu")
    assert found.provenance["activation"] == "quick_gelu"


def test_features_equal_those_of_transformers(state, saved_by_transformers):
    """The oracle, where it is installed."""
    transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
    theirs = transformers.CLIPModel.from_pretrained(saved_by_transformers).eval()
    found = Encoder.load(f"local-dir:{saved_by_transformers}", device="cpu")
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ids = open_clip.SimpleTokenizer(context_length=24)(TEXTS)
    with torch.no_grad():
        vision = theirs.visual_projection(theirs.vision_model(pixel_values=pixels).pooler_output)
        text = theirs.text_projection(theirs.text_model(input_ids=ids).pooler_output)
        torch.testing.assert_close(found.model.encode_image(pixels), vision, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.encode_texts(TEXTS), F.normalize(text, dim=-1), atol=1e-5, rtol=0)


# Other towers


def test_a_vision_tower_that_gives_tokens_as_well(tiny_files, encoder, tmp_path):
    config = json.loads(tiny_files[0].read_text())
    config["vision_cfg"]["output_tokens"] = True
    (tmp_path / "tokens.json").write_text(json.dumps(config))
    weights = str(tiny_files[1])
    found = Encoder.load("tokens", pretrained=weights, model_config=tmp_path / "tokens.json", device="cpu")
    images = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    assert (found.encode_images(images) == encoder.encode_images(images)).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vision_cfg": {"head_width": 0}}, "cannot build x from its config"),
        ({"vision_cfg": {"widht": 3}}, "cannot build x from its config: .*widht"),
        ({"vision_cfg": {"timm_model_name": "no_such_net"}}, "cannot build x from its config: .*no_such_net"),
        ({"vision_cfg": None}, "cannot build x from its config"),
        ({"embed_dim": "big"}, "cannot build x from its config"),
    ],
)
def test_a_config_that_makes_no_model(tiny_files, tmp_path, change, said):
    config = json.loads(tiny_files[0].read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (tmp_path / "x.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=said):
        Encoder.load("x", pretrained=str(tiny_files[1]), model_config=tmp_path / "x.json", device="cpu")

import dataclasses

import pytest
import tomli_w

from fvlfp.config import METHODS, Config, seed_for
from fvlfp.errors import InputError


def test_profile_then_method_then_settings():
    cfg = Config.make("smoke", "fedavg", rounds=7)
    assert (cfg.n, cfg.rounds) == (1_500, 7)
    assert (cfg.lambda_cf, cfg.lambda_dsop, cfg.beta, cfg.gamma) == (0.0, 0.0, 0.0, 0.0)
    assert Config.make(method="fedavg", lambda_cf=2).lambda_cf == 2.0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_valid_config(method):
    assert Config.make(method=method).method == method


def test_file_and_words_give_the_same_config(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('method = "dsop"\nrounds = 3\ngroups = ["shape", "tint"]\nrecentre = false\n')
    words = ["method=dsop", "rounds=3", "groups=shape, tint", "recentre=false"]
    assert Config.read(path) == Config.read(None, words)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lamda_cf=1", "unknown config key 'lamda_cf'; did you mean 'lambda_cf'?"),
        ("rounds=many", "rounds = 'many' is not a valid int"),
        ("rounds=1.5", "rounds = '1.5' is not a valid int"),
        ("lr=-1", r"lr = -1.0 is outside \[1e-08, 10.0\]"),
        ("dsop=prompt", "dsop = 'prompt' is not one of .*; did you mean 'prompted'?"),
        ("method=fedagv", "method = 'fedagv' is not one of .*; did you mean 'fedavg'?"),
        ("groups=", "groups is empty"),
        ("groups=shape,shape", "names a column twice"),
        ("recentre=maybe", "recentre = 'maybe' is not a valid bool"),
        ("rounds", "write key=value"),
        ("fpf_momentum=0.5", "fpf_momentum needs fpf_by = 'server'"),
        ("vision_ctx=65", r"vision_ctx = 65 is outside \[0, 64\]"),
    ],
)
def test_bad_settings_name_the_key(word, message):
    with pytest.raises(InputError, match=message):
        Config.read(None, [word])


def test_bad_files(tmp_path):
    with pytest.raises(InputError, match="no such config file"):
        Config.read(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("rounds = = 3")
    with pytest.raises(InputError, match="not valid TOML"):
        Config.read(tmp_path / "bad.toml")


def test_seeds_are_named_and_do_not_depend_on_order():
    assert seed_for(0, "client/3/round/7") == 364571247938135928  # committed results rest on this value
    names = [f"client/{k}/round/{r}" for k in range(20) for r in range(20)]
    assert len({seed_for(0, name) for name in names}) == len(names)
    assert seed_for(0, "init") != seed_for(1, "init")


def test_digest_changes_with_any_option():
    cfg = Config()
    assert cfg.digest() == Config().digest()
    assert cfg.digest() != cfg.replace(alpha=2.5).digest()


@pytest.mark.parametrize("method", ["fedclip", "local", "leace", "qfedavg"])
def test_vision_prompts_refuse_what_they_cannot_go_with(method):
    with pytest.raises(InputError, match="vision_ctx"):
        Config.make(method=method, vision_ctx=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "local", "lambda_cf": 5.0}, "pooling = 'local' needs lambda_cf = 0.0"),
        ({"method": "local", "dp_noise": 1.0}, "pooling = 'local' needs dp_noise = 0.0, not 1.0"),
        ({"pooling": "local"}, "pooling = 'local' needs lambda_dsop = 0.0"),
        ({"method": "fedclip", "lambda_prox": 0.1}, "tune = 'adapter' needs lambda_prox = 0.0, not 0.1"),
        ({"method": "fedclip", "lambda_gap": 1.0}, "tune = 'adapter' needs lambda_gap = 0.0"),
        ({"method": "leace", "lambda_dsop": 0.5}, "posthoc = 'leace' needs lambda_dsop = 0.0, not 0.5"),
        ({"method": "leace", "pooling": "local"}, "needs pooling = 'federated'|needs posthoc"),
        ({"method": "thresholds", "tune": "adapter"}, "needs tune = 'prompts'"),
        ({"method": "qfedavg", "gamma": 4.0}, "fusion = 'qfedavg' needs gamma = 0.0"),
        ({"method": "zero-shot", "rounds": 3}, "method = 'zero-shot' means rounds = 0, not 3"),
        ({"method": "promptfl", "depth": 2}, "method = 'promptfl' means depth = 1, not 2"),
        ({"method": "fvlfp-label-free", "groups_from": "labels"}, "means groups_from = 'model'"),
    ],
)
def test_what_would_break_or_do_nothing_is_refused_by_name(settings, message):
    with pytest.raises(InputError, match=message):
        Config.make("smoke", **settings)


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        ("data=faces.csv n=500", "n = 500 would not be used: it needs data = 'toyfaces'"),
        (
            "prompts=a.toml",
            "prompts = 'a.toml' would not be used: it needs a table as data",
        ),
        ("partition=column clients=3", "clients = 3 would not be used: it needs a partition other than"),
        ("partition=column min_rows=3", "min_rows = 3 would not be used"),
        ("partition=iid concentration=1", "concentration = 1.0 would not be used: it needs partition = 'cl"),
        ("vision_depth=3", "vision_depth = 3 would not be used: it needs vision_ctx > 0"),
        ("method=dsop pairing=words", "pairing = 'words' would not be used: it needs lambda_cf > 0"),
        ("pairing=words alpha=1", "alpha = 1.0 would not be used: .* and pairing = 'image'"),
        ("pairing=words cf_directions=text", "cf_directions = 'text' would not be used"),
        ("method=cdfp dsop=text", "dsop = 'text' would not be used: it needs lambda_dsop other than 0"),
        ("method=cdfp dsop_at=inference", "dsop_at = 'inference' would not be used"),
        ("method=cdfp dsop_at=inference dsop_words=fair", "dsop_words = 'fair' would not be used"),
        ("method=cdfp rank=2", "rank = 2 would not be used"),
        ("method=cdfp recentre=false", "recentre = False would not be used"),
        ("robust=trimmed-mean beta=2", "beta = 2.0 would not be used: it needs fusion = 'fpf' with robust"),
        ("robust=median gamma=2", "gamma = 2.0 would not be used"),
        ("method=fedavg fpf_cap=2", "fpf_cap = 2.0 would not be used: .* beta or gamma > 0"),
        ("method=fpf-peers fpf_margin=0", "fpf_margin = 0.0 would not be used"),
        ("fpf_floor=0.1", "fpf_floor = 0.1 would not be used: .* fpf_by = 'server'"),
        ("fpf_by=server robust=krum fpf_momentum=0.5", "fpf_momentum = 0.5 would not be used"),
        ("judges=3", "judges = 3 would not be used: it needs fusion = 'peers', 'f3' or 'f3-acc'"),
        ("peers_share=0.9", "peers_share = 0.9 would not be used"),
        ("q=1", "q = 1.0 would not be used: it needs fusion = 'qfedavg'"),
        ("lipschitz=2", "lipschitz = 2.0 would not be used"),
        ("fairfed_beta=2", "fairfed_beta = 2.0 would not be used: it needs fusion = 'fairfed'"),
        ("liars=2", "liars = 2 would not be used: it needs robust other than 'none'"),
        ("dp_clip=1", "dp_clip = 1.0 would not be used: it needs dp_noise > 0"),
        ("seed=1 seed=2", "--set names 'seed' twice"),
    ],
)
def test_a_key_that_no_run_would_read_is_refused(words, needs):
    with pytest.raises(InputError, match=needs):
        Config.read(None, words.split())


@pytest.mark.parametrize(
    "words",
    [
        "robust=trimmed-mean beta=0 gamma=0",
        "method=fedavg baseline=cdfp alpha=1",
        "method=fedavg baseline=fairfed fairfed_beta=2",
        "profile=smoke data=faces.csv n=1500",
        "partition=column min_available=20",
        "robust=multi-krum liars=2 gamma=2 fpf_cap=5",
        "method=fpf fpf_by=server fpf_floor=0.1 fpf_momentum=0.5",
        "dp_noise=1 dp_clip=1",
    ],
)
def test_a_key_that_method_or_baseline_reads_is_taken(words):
    """So is one that is switched off, and one that says what is so anyway."""
    for word in words.split():
        key, _, value = word.partition("=")
        assert str(getattr(Config.read(None, words.split()), key)).removesuffix(".0") == value


@pytest.mark.parametrize("method", METHODS)
def test_a_written_config_of_any_method_is_read_again(method, tmp_path):
    written = Config.make("smoke", method)
    (tmp_path / "run.toml").write_text(tomli_w.dumps(written.to_dict()), encoding="utf-8")
    assert Config.read(tmp_path / "run.toml") == written


def test_a_choice_of_another_method_is_not_one_of_its_keys():
    """`with_method` undoes what a method set, so no method refuses to be a baseline of another."""
    for name in METHODS:
        for other in METHODS:
            assert Config.make("smoke", name).with_method(other).method == other


def test_every_option_states_what_it_takes():
    """A number has a range and a word has choices, unless it names something of the user's."""
    free = {"data", "label", "groups", "prompts", "model", "pretrained", "model_config"}
    for option in dataclasses.fields(Config):
        if option.type not in (bool, "bool") and option.name not in free:
            assert option.metadata, option.name


def test_what_a_client_sends_is_said():
    assert Config.make("smoke", "fedavg").sends() == []
    assert Config.make("smoke", "fvlfp").sends() == ["feature sums by class and group, once"]
    assert Config.make("smoke", "thresholds").sends() == ["a histogram of validation scores"]

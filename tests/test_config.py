import pytest

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

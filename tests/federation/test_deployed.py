"""The apps as a deployment loads them, without a deployment: same tables, same fingerprint, same bits."""

import json
import shutil

import pandas as pd
import pytest
import torch
from flwr.clientapp import ClientApp

from deploy.data import make_data
from deploy.keys import make_keys
from fvlfp.config import Config
from fvlfp.data.card import Card
from fvlfp.data.table import read_table
from fvlfp.errors import InputError
from fvlfp.federation.local_grid import LocalGrid, in_this_process
from fvlfp.runs.deployment import (
    OF_ONE_MACHINE,
    Site,
    agreed,
    client_app,
    config_of,
    open_node,
    run_config_of,
    run_server,
    wait_for_nodes,
)
from fvlfp.runs.save import read_result
from fvlfp.runs.train import prepare, train
from fvlfp.training.memory import estimate


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """Folders of two clients and a server, and the run config that all get."""
    folder = tmp_path_factory.mktemp("trial")
    cfg = Config.make("smoke", clients=2, n=240, rounds=2, device="cpu")
    make_data(folder, cfg)
    site = Site.open(cfg, Card.read(folder / "server" / "words.toml"))
    tables = str(folder / "node-{}" / "faces.csv")
    words = run_config_of(site, server=str(folder / "server"), resume=False)
    return folder, site, words | {"simulated-data": tables}


def node(folder, k, **more):
    return {"client": k, "data": str(folder / f"node-{k}" / "faces.csv"), "device": "cpu", **more}


class Nodes(ClientApp):
    """Every message opens its node anew, as a process of a deployment does."""

    def __init__(self, words):
        self.words = words

    def __call__(self, message, context):
        return open_node(self.words, context.node_config)(message, context)


def test_tables_in_folders_give_the_prompts_of_one_table(trial, tmp_path):
    folder, site, words = trial
    with in_this_process():
        run_server(LocalGrid(Nodes(words), 2), words)
    mine = read_result(folder / "server" / "prompts.safetensors")
    whole = train(site.cfg, prepare(site.cfg, cache=tmp_path), stacked=False, progress=None)
    # A convolution rounds by what else is in its batch, and here batches end with a client's table.
    torch.testing.assert_close(mine.prompts, whole.prompts, atol=1e-5, rtol=0)
    torch.testing.assert_close(mine.projection.basis, whole.projection.basis, atol=1e-5, rtol=0)
    for row, other in zip(mine.history, whole.history, strict=True):
        assert row.loss == pytest.approx(other.loss, abs=1e-4)
        assert (row.clients, row.uplink_bytes) == (other.clients, other.uplink_bytes)
    log = (folder / "server" / "server.log").read_text()
    assert "round   2/2" in log
    assert "the run is over" in log


def test_only_the_nodes_that_the_operator_names_count(trial):
    folder, _, words = trial
    named = folder / "server" / "nodes.json"
    try:
        named.write_text(json.dumps({"1": 0, "2": {"client": 5, "name": "St. Ann"}}))
        with in_this_process():
            run_server(LocalGrid(Nodes(words), 2), words)
        history = read_result(folder / "server" / "prompts.safetensors").history
        assert [row.failed for row in history] == [["St. Ann"]] * 2
        assert [row.reasons for row in history] == [
            ["client St. Ann refused: this node is client 5, not 1"]
        ] * 2
        same = '{"1": {"client": 0, "name": "a"}, "2": {"client": 1, "name": "a"}}'
        for bad, message in (
            ("[1]", "no list of nodes"),
            ('{"1": {"client": 0}}', "no list of nodes"),
            ('{"1": 0, "2": 0}', "one client number to two nodes"),
            (same, "one name to two nodes"),
        ):
            named.write_text(bad)
            with pytest.raises(InputError, match=message):
                run_server(LocalGrid(Nodes(words), 2), words)
    finally:
        named.unlink()


def test_a_node_reads_its_own_folder_only(trial, tmp_path):
    folder, _, words = trial
    (folder / "node-0").rename(tmp_path / "gone")
    try:
        open_node(words, node(folder, 1))
        with pytest.raises(InputError):
            open_node(words, node(folder, 0))
    finally:
        (tmp_path / "gone").rename(folder / "node-0")


def test_a_node_goes_by_the_groups_that_the_model_reads(trial, tmp_path):
    folder, site, _ = trial
    cfg = site.cfg.replace(groups_from="model")
    dataset = read_table(folder / "node-0" / "faces.csv", label=cfg.label, groups=cfg.groups)
    read = Site(cfg, site.encoder, site.task, "").client(0, dataset, cache=tmp_path)
    told = site.client(0, dataset, cache=tmp_path)
    for mine, labelled in ((read.train, told.train), (read.val, told.val)):
        guess = (mine.z @ site.task.group_texts["shape"].T).argmax(1)
        assert torch.equal(mine.g["shape"], guess)
        assert torch.equal(mine.z, labelled.z)
        assert torch.equal(mine.y, labelled.y)
    assert not torch.equal(read.train.g["shape"], told.train.g["shape"]), "a guess is not a label"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda words: words | {"fingerprint": "0" * 16}, "are not the run's"),
        (lambda words: words | {"agreed": "{}"}, "are not the run's"),
        (lambda words: words | {"agreed": ""}, "holds no `agreed` config"),
        (lambda words: words | {"agreed": json.dumps({"data": "/etc/passwd"})}, "belong to one machine"),
    ],
)
def test_a_run_that_is_not_the_agreed_one_is_refused(trial, change, message):
    folder, _, words = trial
    with pytest.raises(InputError, match=message):
        open_node(change(words), node(folder, 0))


def test_other_words_are_refused(trial, tmp_path):
    folder, _, words = trial
    card = (folder / "node-0" / "faces.card.toml").read_text().replace("smiling face", "happy face")
    (tmp_path / "card.toml").write_text(card)
    with pytest.raises(InputError, match="are not the run's"):
        open_node(words, node(folder, 0, prompts=str(tmp_path / "card.toml")))


def test_a_node_keeps_its_own_smallest_cell(trial):
    folder, _, words = trial
    with pytest.raises(InputError, match="this machine lets out no count under 9"):
        open_node(words, node(folder, 0) | {"min-cell": 9})


def test_a_node_without_a_table_takes_none_from_the_server(trial):
    _, _, words = trial
    with pytest.raises(InputError, match="must name this machine's `data`"):
        open_node(words, {"client": 0})


def test_what_is_agreed_names_no_path_and_comes_back(trial):
    _, site, words = trial
    assert not set(agreed(site.cfg)) & set(OF_ONE_MACHINE)
    assert agreed(config_of(words, {"device": "cpu"})) == agreed(site.cfg)


def test_a_grid_without_nodes_stops_the_wait(trial):
    grid = LocalGrid(client_app, 1)
    wait_for_nodes(grid, 3, 1, 0.1)
    with pytest.raises(RuntimeError, match="1 of 3 clients came"):
        wait_for_nodes(grid, 3, 2, 0.1)


def test_keys_are_private_and_never_overwritten(tmp_path):
    make_keys(tmp_path / "keys", nodes=1)
    for name in ("superlink.key", "node-0"):
        assert (tmp_path / "keys" / name).stat().st_mode & 0o077 == 0
    with pytest.raises(InputError, match="holds keys already"):
        make_keys(tmp_path / "keys")


def test_memory_is_estimated_before_anything_runs(trial):
    _, site, _ = trial
    small, large = (estimate(site.encoder, site.task, site.cfg, rows) for rows in (10, 1000))
    weights = sum(p.numel() * p.element_size() for p in site.encoder.model.parameters())
    assert small.weights >= weights
    assert large.features == 100 * small.features
    assert 0 < small.saved < 2**30
    assert large.clients_on(2 * large.total) == 1
    assert "weights" in large.describe()


def test_the_app_that_travels_has_no_code_and_no_dependency():
    import tomllib

    from deploy.trial import APP

    assert [path.name for path in APP.iterdir()] == ["pyproject.toml"]
    project = tomllib.loads((APP / "pyproject.toml").read_text())
    assert project["project"]["dependencies"] == []
    for ref in project["tool"]["flwr"]["app"]["components"].values():
        assert ref.startswith("fvlfp.runs.deployment:")


@pytest.mark.parametrize("kind", ["one class", "one group", "a lone member"])
def test_a_node_of_one_class_or_one_group_takes_part(trial, tmp_path, kind):
    """What is too little for an audit is not too little for a client."""
    folder, _, words = trial
    home = tmp_path / "node-0"
    shutil.copytree(folder / "node-0", home, ignore=shutil.ignore_patterns("answers.json"))
    frame = pd.read_csv(home / "faces.csv")
    if kind == "one class":
        frame = frame[frame["smiling"] == "yes"]
    elif kind == "one group":
        frame = frame[frame["shape"] == "round"]
    else:
        lone = frame[frame["shape"] == "square"].head(1)
        frame = pd.concat([frame[frame["shape"] == "round"], lone])
    frame.to_csv(home / "faces.csv", index=False)
    for name in ("node-1", "server"):
        shutil.copytree(folder / name, tmp_path / name, ignore=shutil.ignore_patterns("answers.json"))
    here = {"server": str(tmp_path / "server"), "simulated-data": str(tmp_path / "node-{}" / "faces.csv")}
    with in_this_process():
        run_server(LocalGrid(Nodes(words | here), 2), words | here)
    history = read_result(tmp_path / "server" / "prompts.safetensors").history
    assert [(row.clients, row.reasons) for row in history] == [(2, []), (2, [])]
    with pytest.raises(InputError):
        read_table(home / "faces.csv", label="smiling", groups=["shape"])


def test_a_private_run_says_its_epsilon_in_the_servers_log(trial, tmp_path):
    folder, site, words = trial
    shutil.copytree(folder / "server", tmp_path / "server")
    private = Site.open(site.cfg.replace(dp_noise=1.0, rounds=1), Card.read(folder / "server" / "words.toml"))
    words = words | run_config_of(private, server=str(tmp_path / "server"), resume=False)
    with in_this_process():
        run_server(LocalGrid(Nodes(words), 2), words)
    assert "epsilon = " in (tmp_path / "server" / "server.log").read_text()


@pytest.mark.parametrize("spoil", ["value", "picture", "column"])
def test_what_is_wrong_with_a_nodes_table_stays_in_its_own_log(trial, tmp_path, caplog, spoil):
    folder, _, words = trial
    home = tmp_path / "node-0"
    shutil.copytree(folder / "node-0", home, ignore=shutil.ignore_patterns("answers.json"))
    frame = pd.read_csv(home / "faces.csv")
    if spoil == "value":
        frame.loc[:2, "shape"] = "secret"
    elif spoil == "column":
        frame = frame.drop(columns="shape")
    else:
        (home / frame["path"][0]).write_bytes(b"no picture")
    frame.to_csv(home / "faces.csv", index=False)
    with pytest.raises(InputError) as told:
        open_node(words, node(tmp_path, 0))
    assert str(told.value) == "this machine's table cannot be used; its own log says why"
    assert str(home) in caplog.text

"""What the server asks before and after training: moments for a subspace, counts for the choice of one.

What this module does not do: it reads no test row, and it sees sums and counts only. The rule of the choice
is in `fvlfp.training.select`.
"""

from __future__ import annotations

import logging

import torch
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fvlfp import dsop
from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.federation.checkpoint import ServerState
from fvlfp.federation.pooling import pool_counts, pool_moments
from fvlfp.federation.protocol import (
    CANDIDATES,
    MOMENTS,
    CandidatesQuestion,
    MomentsQuestion,
    count_name,
    count_shapes,
    moment_shapes,
    read_arrays,
)
from fvlfp.federation.replies import Check, check_counts, check_moments
from fvlfp.federation.trust import Roll, accept, answers, enough, tell
from fvlfp.options import TrustOptions
from fvlfp.training.select import Candidate, choose
from fvlfp.training.task import Task

log = logging.getLogger("fvlfp")

#: lambdas that validation may choose from; every rank goes with each.
LAMBDAS = (1.0, 0.5)

#: name -> (sums (C, G, d), counts (C, G)), over all clients
Moments = dict[str, tuple[Tensor, Tensor]]


def ask(
    grid: Grid, message_type: str, content: RecordDict, *, check: Check, options: TrustOptions, roll: Roll
) -> list[dict[str, Tensor]]:
    """The same message to every node; the arrays of usable replies, in the order of client numbers.

    check: says what is wrong with a reply. roll: who may speak for which client.

    Raises:
        RunStopped: fewer than `min_available` replies are usable.
    """
    nodes = sorted(grid.get_node_ids())
    messages = [Message(content, dst_node_id=node, message_type=message_type) for node in nodes]
    replies, late = answers(
        nodes, grid.send_and_receive(messages, timeout=options.deadline), options.deadline
    )
    good, refused = accept(replies, check, roll)
    tell(late | refused, roll)
    enough(good, late | refused, options.min_available)
    return [read_arrays(reply.content, "arrays") for reply in good]


def ask_subspace(grid: Grid, task: Task, cfg: Config, state: ServerState) -> None:
    """Put the full-rank projection and CDFP's directions into the state.

    A collapsed fair subspace (CDFP shrinks the very differences it needs) falls back to hand-written words.
    """
    d = task.frozen_texts.shape[1]
    basis, mu = torch.zeros(d, 0), torch.zeros(d)
    if cfg.uses_dsop or cfg.uses_directions:
        fair = state.prompts if cfg.dsop_words == "fair" else None
        moments = _ask_moments(grid, task, cfg, fair, state.roll)
        if moments and not any(bool((counts > 0).any()) for _, counts in moments.values()):
            log.warning(
                "no client has a class-by-group cell of min_cell = %d rows: no projection, and no directions "
                "from pictures",
                cfg.min_cell,
            )
        texts = task.group_texts if fair is None else task.fair_group_texts(fair)
        if cfg.uses_dsop:
            kind = "image" if cfg.dsop == "image" else "prompted"
            cells = [moments[f"{kind}/{name}"] for name in texts] if moments else []
            if cells:
                state.class_means = torch.stack([dsop.class_means(*cell) for cell in cells]).mean(0)
            stacked = torch.cat([_directions(cfg.dsop, name, texts, moments) for name in texts])
            basis = dsop.subspace(stacked.cpu())[0]
            if cfg.recentre:
                by_group = cfg.dsop == "image"
                mu = torch.stack([dsop.overall_mean(*cell, by_group=by_group) for cell in cells]).mean(0)
        if cfg.uses_directions:
            for name in texts:
                found = _directions(cfg.cf_directions, name, task.group_texts, moments)
                state.directions[name] = found.cpu()
    state.projection = Projection(basis, mu)


def _ask_moments(grid: Grid, task: Task, cfg: Config, prompts: Tensor | None, roll: Roll) -> Moments:
    """Sums and counts added up over all clients; {} if words alone are enough."""
    if not cfg.asks_moments:
        return {}
    check = check_moments(moment_shapes(task, cfg), min_cell=cfg.min_cell, most=cfg.max_examples)
    content = MomentsQuestion(prompts).content()
    parts = ask(grid, MOMENTS, content, check=check, options=cfg, roll=roll)
    return pool_moments(parts, cfg, task.frozen_texts)


def _directions(mode: str, name: str, texts: dict[str, Tensor], moments: Moments) -> Tensor:
    return dsop.group_directions(mode, texts[name].cpu(), *moments.get(f"{mode}/{name}", (None, None)))


def choose_projection(grid: Grid, task: Task, cfg: Config, state: ServerState) -> None:
    """Cut the projection to the rank, and set the lambda, that do best on the clients' validation data.

    A rank or lambda that the config fixes is not searched; lambda_dsop = 0 means off and asks nobody. Before
    training, what a projection takes from the classes is known from their means only (`select.KEPT`): those
    of the clients' features or, where no moments were asked for, the texts.
    """
    full = state.projection.rank
    lambdas = LAMBDAS if cfg.lambda_dsop < 0 else (cfg.lambda_dsop,)
    ranks = range(1, full + 1) if cfg.rank == 0 else (min(cfg.rank, full),)
    candidates = [(0, 0.0)] if cfg.rank == 0 and cfg.lambda_dsop < 0 else []
    candidates += [(rank, lam) for lam in lambdas for rank in ranks if rank > 0 and lam > 0]
    rank, lam = candidates[0] if candidates else (0, 0.0)
    state.candidates = []
    if len(candidates) > 1:
        state.candidates = _try_on_validation(grid, task, cfg, state, candidates)
        rank, lam = candidates[choose(state.candidates, tolerance=cfg.tolerance)]
    cut = state.projection.to_rank(rank, lam)
    state.projection = Projection(cut.basis.contiguous(), cut.mu, lam)


def _try_on_validation(
    grid: Grid, task: Task, cfg: Config, state: ServerState, candidates: list[tuple[int, float]]
) -> list[Candidate]:
    question = CandidatesQuestion(state.model, state.projection, candidates)
    check = check_counts(count_shapes(task, len(candidates)), min_cell=cfg.min_cell, most=cfg.max_examples)
    parts = ask(grid, CANDIDATES, question.content(), check=check, options=cfg, roll=state.roll)
    pooled = pool_counts(parts, cfg)
    classes = task.frozen_texts.cpu() if state.class_means is None else state.class_means
    trained = cfg.dsop_at == "inference"
    return [
        Candidate.judge(
            rank,
            lam,
            [pooled[count_name(i, name)] for name in task.groups],
            min_cell=cfg.min_cell,
            kept=1.0 if trained else state.projection.to_rank(rank, lam).kept(classes),
        )
        for i, (rank, lam) in enumerate(candidates)
    ]

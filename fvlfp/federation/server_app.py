"""The ServerApp: what the server asks, in order, and the state that it carries from round to round.

1. Moments, only if a subspace or counterfactual directions must come from images.
2. Validation counts for each candidate (rank, lambda) of the projection, "off" among them.
3. Training, once a round: the model out; a model, a fusion weight and a report back.

What this module does not do: it looks at no reply itself, see `fvlfp.federation.trust`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from fvlfp.config import Config
from fvlfp.dsop import no_projection
from fvlfp.errors import InputError
from fvlfp.federation.ask import ask_subspace, choose_projection
from fvlfp.federation.baseline_rules import strategy_for
from fvlfp.federation.checkpoint import Checkpoints, ServerState
from fvlfp.federation.protocol import arrays_of, read_arrays
from fvlfp.federation.trust import Roll
from fvlfp.training.model import initial_model, model_of, on_device
from fvlfp.training.reports import RoundReport
from fvlfp.training.task import Task


def serve(
    grid: Grid,
    task: Task,
    cfg: Config,
    *,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    on_round: Callable[[RoundReport], None] = lambda report: None,
    roll: Roll | None = None,
) -> ServerState:
    """The ServerApp's work: the whole run, from hand-written prompts to the final state.

    on_round: called with each round's report. roll: which node is which client, where the operator knows.

    Raises:
        RunStopped: fewer than `min_available` clients gave a usable answer.
        InputError: the checkpoints are of another config, or of more rounds.
    """
    roll = roll or Roll()
    state = checkpoints.load() if checkpoints and resume else None
    if state is not None:
        state.roll = roll
    else:
        none = no_projection(task.frozen_texts.shape[1])
        state = ServerState(initial_model(task, cfg), none, roll=roll)
        ask_subspace(grid, task, cfg, state)
        if cfg.dsop_at == "training":
            choose_projection(grid, task, cfg, state)
    if state.round > cfg.rounds:
        raise InputError(f"the run has done {state.round} rounds already: rounds = {cfg.rounds} is fewer")
    state.model = on_device(state.model, task.initial.device)
    if state.round < cfg.rounds and not has_stalled(state.history, cfg.patience):
        with suppress(_Stalled):
            _train(grid, task, cfg, state, checkpoints, on_round)
    if state.best is not None:
        state.model = on_device(state.best, task.initial.device)
    if cfg.dsop_at == "inference":
        if cfg.dsop_words == "fair":
            ask_subspace(grid, task, cfg, state)
        choose_projection(grid, task, cfg, state)
    return state


class _Stalled(Exception):
    """Validation has not become better for `patience` rounds; Flower's loop has no other way out."""


def best_round(history: Sequence[RoundReport]) -> int:
    """The first round with the largest mean validation accuracy; 0 where none is defined.

    It is what clients report after their local steps, on their own validation rows.
    """
    known = {r.round: r.balanced_accuracy for r in history if r.balanced_accuracy is not None}
    return max(known, key=lambda round_: (known[round_], -round_), default=0)


def has_stalled(history: Sequence[RoundReport], patience: int) -> bool:
    """Whether the last `patience` rounds were all no better than one before; 0 never is."""
    return patience > 0 and len(history) > patience and history[-1].round - best_round(history) >= patience


def _train(
    grid: Grid,
    task: Task,
    cfg: Config,
    state: ServerState,
    checkpoints: Checkpoints | None,
    on_round: Callable[[RoundReport], None],
) -> None:
    """All rounds that are left; the state is what the last of them leaves."""
    done = state.round
    strategy = strategy_for(cfg, task, state)

    def after_round(round_: int, arrays: ArrayRecord) -> None:
        if round_ == 0:
            return  # Flower calls once before the first round
        state.model = on_device(model_of(read_arrays(arrays)), task.initial.device)
        state.history.append(strategy.history[-1])
        state.means, state.weights, state.round = strategy.means, strategy.previous, done + round_
        if cfg.best_round and best_round(state.history) == state.round:
            state.best = state.model
        if checkpoints:
            checkpoints.save(state)
        on_round(state.history[-1])
        if has_stalled(state.history, cfg.patience):
            raise _Stalled

    strategy.start(
        grid,
        arrays_of(state.model.tensors()),
        num_rounds=cfg.rounds - done,
        timeout=cfg.deadline,
        evaluate_fn=after_round,
    )

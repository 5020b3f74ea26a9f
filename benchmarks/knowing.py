"""Liars that know every honest answer, the server's rule and each other, and try lies before they send them.

- Training: a number of the prompts goes to the side on which the fused prompts do more harm, by the gradient
  of the harm on all clients' validation rows. Under a trimmed mean it goes to the most extreme honest value:
  a value beyond would be cut off all the same, and this one cannot be told from an honest one (Fang et al.
  2020, with the gradient in place of the last round's direction). The gradient is taken again at the prompts
  that the server would then make, `STEPS` times.
- Moments: one of `LIES` lies, by number; `benchmarks.liars` tries each through a whole run.
- Validation tables: of several lies the one of which the server's own pooling makes the most.
- Judging: all right for the most harmful quarter of the candidates, all wrong for the others.

What this module does not do: it plans no more than one round ahead. It knows `robust = "trimmed-mean"` alone,
and not which of its ways of fusing `peers` will take: there it reckons with the trimmed mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from fvlfp import dsop
from fvlfp.config import Config
from fvlfp.federation.pooling import class_axes, pool_counts, summed
from fvlfp.federation.protocol import (
    CANDIDATES,
    JUDGE,
    MOMENTS,
    TRAIN,
    CandidatesQuestion,
    TrainQuestion,
    arrays_of,
    count_name,
    moment_arrays,
    number,
    read_arrays,
    read_moments,
)
from fvlfp.training.examples import ClientData
from fvlfp.training.reports import client_moments
from fvlfp.training.select import Candidate, choose
from fvlfp.training.task import Task

Arrays = dict[str, Tensor]
#: what a lie is meant to raise: the error balanced over classes, or the gap between groups
AIMS = ("error", "gap")
STEPS = 5
#: how many lies are tried in the moments
LIES = 13
#: examples that a liar claims in every cell; rows in every cell of a validation table
EXAMPLES, ROWS = 10_000.0, 100_000


@dataclass
class Knowing(ClientApp):
    """A ClientApp some of whose clients lie with full knowledge, in some phases, from the first round on.

    It asks all clients when the first of them is asked, and answers the others from what it has heard.
    lie: which of the lies in the moments.
    """

    honest: ClientApp
    who: frozenset[int]
    clients: list[ClientData]
    task: Task
    cfg: Config
    aim: str
    lie: int = 0
    phases: tuple[str, ...] = (TRAIN, MOMENTS, CANDIDATES, JUDGE)
    waiting: dict[str, dict[int, RecordDict]] = field(default_factory=dict)

    def __call__(self, message: Message, context: Context) -> Message:
        """The honest answer, or a lie."""
        client, kind = int(context.node_config["partition-id"]), message.metadata.message_type
        if client not in self.waiting.get(kind, {}):
            self.waiting[kind] = self._answers(message, context)
        return Message(self.waiting[kind].pop(client), reply_to=message)

    def _answers(self, message: Message, context: Context) -> dict[int, RecordDict]:
        """What every client says."""
        contents = {}
        for k in range(len(self.clients)):
            node = Context(context.run_id, k + 1, {"partition-id": k}, RecordDict(), {})
            contents[k] = self.honest(message, node).content
        honest = [content for k, content in contents.items() if k not in self.who]
        if message.metadata.message_type not in self.phases:
            return contents
        if message.metadata.message_type == TRAIN:
            self._train(message, contents, honest)
            return contents
        lie = self._arrays(message, [read_arrays(content, "arrays") for content in honest])
        for k in self.who:
            contents[k]["arrays"] = arrays_of(lie)
        return contents

    def _arrays(self, message: Message, honest: list[Arrays]) -> Arrays:
        """The lie in a phase before or after training."""
        kind = message.metadata.message_type
        if kind == MOMENTS:
            return lies_in_moments(honest, self.task, len(self.who))[self.lie]
        if kind == CANDIDATES:
            question = CandidatesQuestion.read(message.content)
            classes = self._class_means()
            kept = [question.projection.to_rank(*pair).kept(classes) for pair in question.candidates]
            return worst_tables(honest, question.candidates, kept, self.cfg, len(self.who), self.aim)
        assert kind == JUDGE
        return worst_judgement(honest, self.aim)

    def _class_means(self) -> Tensor:
        """What the server would find without lies (C, d)."""
        moments = [client_moments(client.train, self.task, self.cfg, None) for client in self.clients]
        pooled = read_moments(summed([moment_arrays(each) for each in moments]))
        return torch.stack([dsop.class_means(*cells) for cells in pooled.values()]).mean(0)

    def _train(self, message: Message, contents: dict[int, RecordDict], honest: list[RecordDict]) -> None:
        """The same prompts from every liar, with the report that earns the largest weight."""
        question = TrainQuestion.read(message.content)
        prompts = torch.stack([read_arrays(content, "arrays")["prompts"] for content in honest])
        reports = [content.metric_records["metrics"] for content in honest]
        n = 2 * int(np.median([number(report, "num-examples") for report in reports]))  # SIZE_CAP of `peers`
        lie = worst_prompts(prompts, self.cfg.liars, self._harm(question))
        for k in self.who:
            contents[k]["arrays"] = arrays_of({"prompts": lie})
            contents[k].metric_records["metrics"].update({"num-examples": n, "perf": 1.0, "disp": 0.0})

    def _harm(self, question: TrainQuestion) -> Callable[[Tensor], Tensor]:
        """Prompts -> how much they harm, on the validation rows of all clients; differentiable."""
        rows = [client.val for client in self.clients]
        z, y = (torch.cat([getattr(val, name) for val in rows]) for name in ("z", "y"))
        if question.projection is not None:
            z = self.task.parts.applied(question.projection)(z)
        (name,) = self.task.groups
        g, groups = torch.cat([val.g[name] for val in rows]), range(self.task.n_groups[name])

        def harm(prompts: Tensor) -> Tensor:
            right = self.task.logits(z, self.task.class_texts(prompts)).softmax(1)[torch.arange(len(y)), y]
            classes = range(len(self.task.classes))
            recall = torch.stack([torch.stack([right[(y == c) & (g == k)].mean() for k in groups])
                                  for c in classes])  # fmt: skip
            return 1 - recall.mean() if self.aim == "error" else (recall.amax(1) - recall.amin(1)).sum()

        return harm


def by_trimmed_mean(honest: Tensor, liars: int, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The lie that goes in a direction, and the prompts that the server then makes.

    honest: (H, ...). As many liars as the rule reckons with push every number to one side.
    """
    ranked, up = honest.sort(0).values, direction > 0
    fused = torch.where(up, ranked[liars:].mean(0), ranked[: len(ranked) - liars].mean(0))
    return torch.where(up, ranked[-1], ranked[0]), fused


def worst_prompts(honest: Tensor, liars: int, harm: Callable[[Tensor], Tensor]) -> Tensor:
    """The most harmful of `STEPS` lies, each along the gradient at the prompts that the one before makes."""
    found: list[tuple[float, Tensor]] = []
    at = honest.mean(0)
    for _ in range(STEPS):
        here = at.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(harm(here), here)
        lie, at = by_trimmed_mean(honest, liars, gradient)
        with torch.no_grad():
            found.append((float(harm(at)), lie))
    return max(found, key=lambda pair: pair[0])[1]


def lies_in_moments(honest: list[Arrays], task: Task, liars: int) -> list[Arrays]:
    """`LIES` lies along and against what tells the first two classes apart, in texts and in features.

    Which of them harms most shows in a whole run only: they turn CDFP's directions, by which prompts learn to
    overlook a class or the wrong difference, and DSOP's, which are then chosen on validation tables.
    """
    texts = task.frozen_texts.cpu()
    moments = [read_moments(part) for part in honest]
    pairs = [
        [np.stack([m[name][i].double().numpy() for m in moments]) for i in (0, 1)] for name in moments[0]
    ]
    bases = [
        torch.from_numpy(class_axes(sums, counts, liars, texts.double().numpy())).float()
        for sums, counts in pairs
    ]
    sums, counts = pairs[0]
    features = torch.from_numpy(sums.sum((0, 2)) / counts.sum((0, 2)).clip(1)[:, None]).float()
    plain = [torch.eye(texts.shape[1])] * len(bases)
    lies = [along_the_classes(honest[0], task)]
    for means in (texts, features):  # (C, d)
        axis = (means[1] - means[0]) / (means[1] - means[0]).norm()
        for sign in (1, -1):
            lies.append(at_the_extremes(honest, sign * axis, plain, within=False))
            lies += [at_the_extremes(honest, sign * axis, bases, within=within) for within in (False, True)]
    return lies


def along_the_classes(arrays: Arrays, task: Task) -> Arrays:
    """Moments whose groups differ exactly as the classes do: what DSOP then removes is the task."""
    out = {}
    for name, (sums, counts) in read_moments(arrays).items():
        groups = torch.arange(sums.shape[1]) % len(task.classes)
        lie = EXAMPLES * task.frozen_texts.cpu()[groups].expand_as(sums).clone()
        out[name] = (lie, torch.full_like(counts, EXAMPLES))
    return moment_arrays(out)


def at_the_extremes(honest: list[Arrays], axis: Tensor, bases: list[Tensor], *, within: bool) -> Arrays:
    """Every number of a cell's mean at an end of its honest values: along `axis`, turned by group.

    bases: for each attribute (d, d), the coordinates. within: the differences from a client's first group are
    at an end, in place of the means.
    """
    out, moments = {}, [read_moments(part) for part in honest]
    for name, basis in zip(moments[0], bases, strict=True):
        sums, counts = (torch.stack([m[name][i] for m in moments]) for i in (0, 1))
        counts = counts[..., None]
        means = sums / counts.clamp_min(1) @ basis  # (H, C, G, d)
        there = counts > 0
        middle = (means * there).sum(0) / there.sum(0).clamp_min(1)
        turn = 1 - 2 * (torch.arange(means.shape[2]) % 2)[:, None]  # (G, 1)
        if within:
            means, there = means - means[:, :, :1], there & there[:, :, :1]
        most, least = (means.masked_fill(~there, s).amax(0) if s < 0 else means.masked_fill(~there, s).amin(0)
                       for s in (-9.0, 9.0))  # fmt: skip
        far = torch.where(turn * (axis @ basis) > 0, most, least)
        far = torch.where(there.any(0), far + middle[:, :1] * within, middle)
        lie = EXAMPLES * _short_enough(middle, far) @ basis.T
        out[name] = (lie, torch.full_like(counts[0, ..., 0], EXAMPLES))
    return moment_arrays(out)


def _short_enough(middle: Tensor, far: Tensor) -> Tensor:
    """From the middle (C, G, d) towards `far`, as long as the mean of unit features can be."""
    for step in np.linspace(1, 0, 21):
        mean = middle + float(step) * (far - middle)
        if float(mean.norm(dim=-1).max()) <= 1:
            break
    return mean


def worst_tables(
    honest: list[Arrays],
    pairs: Sequence[tuple[int, float]],
    kept: Sequence[float],
    cfg: Config,
    liars: int,
    aim: str,
) -> Arrays:
    """Of tables that praise one candidate, those by which the server chooses the most harmful one.

    kept: what each candidate leaves of the differences between class means.
    """
    names = sorted({name.partition("/")[2] for name in honest[0]})

    def judged(pooled: dict[str, np.ndarray]) -> list[Candidate]:
        return [
            Candidate.judge(
                *pairs[i],
                [pooled[count_name(i, name)] for name in names],
                min_cell=cfg.min_cell,
                kept=kept[i],
            )
            for i in range(len(pairs))
        ]

    truth = judged(pool_counts(honest, cfg.replace(robust="none")))
    harm = [1 - c.cell_accuracy if aim == "error" else c.odds_gap or 0.0 for c in truth]

    def chosen(lie: Arrays) -> float:
        tried = judged(pool_counts([*honest, *[lie] * liars], cfg))
        return harm[choose(tried, tolerance=cfg.tolerance)]

    return max((for_one(honest[0], praised) for praised in range(len(pairs))), key=chosen)


def for_one(arrays: Arrays, praised: int) -> Arrays:
    """Validation tables by which one candidate is right throughout, and the others wrong."""
    out = {}
    for name, tensor in arrays.items():
        classes = torch.arange(tensor.shape[-1])
        said = classes if int(name.partition("/")[0]) == praised else (classes + 1) % len(classes)
        out[name] = torch.zeros_like(tensor)
        out[name][:, classes, said] = ROWS
    return out


def worst_judgement(honest: list[Arrays], aim: str) -> Arrays:
    """All right for the most harmful quarter of the candidates, all wrong for the others."""
    out = {}
    for name in [name for name in honest[0] if name.startswith("total/")]:
        other = name.replace("total/", "right/")
        rows = torch.stack([part[name] for part in honest]).sum(0)  # (C, G)
        recall = torch.stack([part[other] for part in honest]).sum(0) / rows.clamp_min(1)  # (A, C, G)
        gap = (recall.amax(2) - recall.amin(2)).amax(1)
        harm = gap if aim == "gap" else 1 - recall.mean((1, 2))
        praised = harm >= harm.quantile(0.75)
        out[name] = torch.full_like(rows, ROWS)
        out[other] = (ROWS * praised[:, None, None]).expand_as(recall).long().clone()
    return out

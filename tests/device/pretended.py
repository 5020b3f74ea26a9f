"""A pretended accelerator: what would break on a GPU breaks here, on a machine that has none.

A tensor on it says `device = pretend:0`, keeps its numbers in a CPU tensor, and takes part in an operation
only with others of its kind. As on CUDA, a CPU tensor without dimensions may join an elementwise operation,
and CPU indices may be used but cost a copy. As on Apple's devices, there is no float64. The numbers are real,
so a whole run can be compared with a CPU's. Every transfer, and every wait for the device, is counted with
the line of `fvlfp` that caused it.

What it does not do: it measures no time, it does not round as a GPU does, and autocast has no effect on it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

aten = torch.ops.aten
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
#: The shape of their result depends on values, so the host waits for the device.
WAITING = {aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.bincount, aten.equal}


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_setup_privateuseone_for_python_backend("pretend", backend_module=_Backend())
DEVICE = torch.device("pretend:0")
_autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
_autocast.fallback(torch.library.fallthrough_kernel)


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device; `host` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    host: torch.Tensor

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=DEVICE,
        )
        made.host = host
        return made

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec)  # torch does so for its own class only

    def __repr__(self) -> str:
        return f"OnDevice({self.host})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Watch.current.run(func, args, kwargs or {})


class Watch(TorchDispatchMode):
    """Runs every operation by the rules above, and counts.

    kernels: operations on the device. transfers, waits: what moved, and what made the host wait for the
    device, each with the line that caused it. A copy to the device that asks for `non_blocking` is no wait.
    """

    current: Watch

    def __init__(self) -> None:
        super().__init__()
        self.clear()

    def clear(self) -> None:
        """Count from 0."""
        self.kernels = 0
        self.transfers: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.recording: Graph | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if OnDevice not in types and not (kwargs and kwargs.get("device")):
            return func(*args, **(kwargs or {}))  # soon done: most of what a test does is on the CPU
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """One operation."""
        tensors: list[torch.Tensor] = []
        _each(tensors.append, (args, kwargs))
        ours = [x for x in tensors if isinstance(x, OnDevice)]
        asked = kwargs.get("device")
        to_us = asked is not None and torch.device(asked).type == DEVICE.type
        if not ours and not to_us:
            return func(*args, **kwargs)
        op, stays = func.overloadpacket, bool(ours) and (asked is None or to_us)
        if op in (aten._to_copy, aten.copy_, aten._local_scalar_dense):
            self._move(op, tensors, to_us, kwargs)
            stays = stays if op is aten._to_copy else op is aten.copy_ and isinstance(args[0], OnDevice)
        else:
            self._check(func, args, kwargs, tensors, ours)
            stays = True
        known = {id(x.host): x for x in ours}  # an operation in place answers with what it was given
        args, kwargs = _each(lambda x: x.host if isinstance(x, OnDevice) else x, (args, kwargs))
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "non_blocking")}
        out = func(*args, **kwargs)
        if self.recording is not None:
            self.recording.record(func, args, kwargs, out, self.waits)
        if not (stays or to_us):
            return out
        return _each(lambda x: self._there(known, x), out)

    def _there(self, known: dict[int, OnDevice], host: torch.Tensor) -> OnDevice:
        if host.dtype == torch.float64:
            raise TypeError(f"{DEVICE} has no float64 ({_line()})")
        return known[id(host)] if id(host) in known else OnDevice(host)

    def _move(self, op: Any, tensors: list[torch.Tensor], to_us: bool, kwargs: dict[str, Any]) -> None:
        """A copy, or one number read by the host."""
        ends = [isinstance(x, OnDevice) for x in tensors]
        if op is aten._to_copy:
            ends.append(to_us if kwargs.get("device") is not None else ends[0])
        if len(set(ends)) == 1 and op is not aten._local_scalar_dense:
            self.kernels += 1
            return
        self.transfers[_line()] += 1
        if not (kwargs.get("non_blocking") and ends[-1] and not ends[0]):
            self.waits[_line()] += 1

    def _check(
        self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[torch.Tensor], ours: list[OnDevice]
    ) -> None:
        """No operation on tensors of two devices, and no generator of another one."""
        op, strangers = func.overloadpacket, [x for x in tensors if not isinstance(x, OnDevice)]
        self.kernels += not func.is_view
        if strangers and ours:
            if op in INDEXING and isinstance(args[0], OnDevice):
                self.transfers[_line()] += 1
                self.waits[_line()] += 1
            elif torch.Tag.pointwise not in func.tags or any(x.dim() for x in strangers):
                raise RuntimeError(f"{func}: tensors on {DEVICE} and on cpu ({_line()})")
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != DEVICE.type:
            raise RuntimeError(f"{func}: a generator on cpu for a tensor on {DEVICE} ({_line()})")
        if op in WAITING or (op in INDEXING and any(x.dtype == torch.bool for x in tensors[1:])):
            self.waits[_line()] += 1


class Graph:
    """Stands for `torch.cuda.CUDAGraph`: operations, done again on the memory that they were recorded on.

    As on CUDA, what is recorded has no result before it is replayed, and nothing in it may wait for the host.
    """

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []
        self.waits_before: Counter[str] = Counter()
        self.replays = 0

    def record(self, func: Any, args: Any, kwargs: Any, out: Any, waits: Counter[str]) -> None:
        """One operation, already done."""
        if waits != self.waits_before:
            raise RuntimeError(f"operation not permitted when stream is capturing ({_line()})")
        if not func.is_view:
            results: list[torch.Tensor] = []
            _each(results.append, [out] if isinstance(out, torch.Tensor) else out)
            self.operations.append((func, args, kwargs, results))

    def replay(self) -> None:
        """All of them, in order."""
        self.replays += 1
        for func, args, kwargs, results in self.operations:
            again: list[torch.Tensor] = []
            out = func(*args, **kwargs)
            _each(again.append, [out] if isinstance(out, torch.Tensor) else out)
            for place, new in zip(results, again, strict=True):
                if place is not new:  # an operation in place answers with what it was given
                    place.copy_(new)


@contextmanager
def recorded(graph: Graph) -> Iterator[None]:
    """Stands for `torch.cuda.graph`."""
    watch = Watch.current
    graph.waits_before = Counter(watch.waits)
    watch.recording = graph
    try:
        yield
    finally:
        watch.recording = None
    for _func, args, _kwargs, results in graph.operations:
        given: list[torch.Tensor] = []
        _each(given.append, args)
        for result in results:
            if result.is_floating_point() and not any(result is x for x in given):
                result.fill_(float("nan"))


def _each(change: Callable[[torch.Tensor], Any], x: Any) -> Any:
    """x with every tensor in it changed; torch's own `tree_map` takes most of a test's time."""
    if isinstance(x, torch.Tensor):
        return change(x)
    if isinstance(x, dict):
        return {key: _each(change, value) for key, value in x.items()}
    return type(x)([_each(change, value) for value in x]) if isinstance(x, (list, tuple)) else x


def _line() -> str:
    """The innermost line of fvlfp at work; where none is, of whoever called torch."""
    frames = [
        f.f_code.co_filename + f":{f.f_lineno}"
        for f in _callers()
        if "site-packages" not in f.f_code.co_filename
    ]
    return next((f for f in frames if "/fvlfp/" in f), frames[0] if frames else "?").rpartition("/")[2]


def _callers() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            yield frame
        frame = frame.f_back


@contextmanager
def pretended() -> Iterator[Watch]:
    """Inside, `DEVICE` is a device."""
    torch._C._set_only_lift_cpu_tensors(True)
    Watch.current = watch = Watch()
    try:
        with watch:
            yield watch
    finally:
        torch._C._set_only_lift_cpu_tensors(False)

"""Clauses 5 and 6: state can be inspected, saved, copied and resumed without losing a bit."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import torch

from steepest.checks.registry import CheckFailed, check, expect
from steepest.checks.subject import (
    Subject,
    displacement,
    need,
    same_bits,
    set_everywhere,
    snapshot,
    state_of,
    state_tensors,
)


def _through_file(value: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@check("state.keyed_by_parameters", 5)
def keyed_by_parameters(subject: Subject) -> None:
    """Every key of state is a parameter of the groups."""
    params = subject.params()
    optimizer = subject.build(params)
    subject.run(optimizer, params, 3)
    known = {id(param) for param in params}
    strangers = [key for key in optimizer.state if id(key) not in known]
    shown = ", ".join(repr(key)[:40] for key in strangers[:3])
    expect(
        not strangers,
        "state keyed only by parameters",
        f"it has the keys {shown}",
        "store per-run numbers with a parameter or in a group; other keys break load_state_dict and FSDP",
    )


@check("state.plain", 5, strict=True)
def plain(subject: Subject) -> None:
    """State values are tensors and numbers under names that do not change between steps."""
    params = subject.params()
    optimizer = subject.build(params)
    subject.run(optimizer, params, 2)
    names = [list(state_of(optimizer, param)) for param in params]
    subject.run(optimizer, params, 2, start=2)
    later = [list(state_of(optimizer, param)) for param in params]
    expect(names == later, f"the state names {names[0]} to stay", f"two steps later they are {later[0]}")
    for param in params:
        for name, value in state_of(optimizer, param).items():
            fine = isinstance(name, str) and isinstance(value, (torch.Tensor, int, float, bool, str))
            expect(
                fine, "tensors and numbers under string names", f"state[{name!r}] is a {type(value).__name__}"
            )


@check("state.dict_before_step", 5)
def dict_before_step(subject: Subject) -> None:
    """state_dict() and load_state_dict() work before the first step."""
    params = subject.params()
    fresh = subject.build(params)
    saved = _through_file(fresh.state_dict())
    other = subject.build(subject.params(), lr=float(fresh.param_groups[0]["lr"]) * 0.5)
    other.load_state_dict(saved)
    end = subject.run(other, [p for group in other.param_groups for p in group["params"]], 0)
    expect(len(end) == len(params), f"{len(params)} parameters after loading", f"there are {len(end)}")
    loaded = float(other.param_groups[0]["lr"])
    wanted = float(fresh.param_groups[0]["lr"])
    expect(loaded == wanted, f"the saved lr={wanted} after load_state_dict", f"the group has {loaded}")


@check("state.load_mismatch", 5)
def load_mismatch(subject: Subject) -> None:
    """Loading the state of a different number of parameters is a ValueError."""
    params = subject.params()
    saved = subject.build(subject.params([subject.shapes()[0]] * 9)).state_dict()
    try:
        subject.build(params).load_state_dict(saved)
    except ValueError:
        return
    raise CheckFailed("expected ValueError for a state of 9 parameters; it was loaded silently")


@check("state.weights_only", 5)
def weights_only(subject: Subject) -> None:
    """state_dict() survives torch.save and torch.load(weights_only=True)."""
    params = subject.params()
    optimizer = subject.build(params)
    subject.run(optimizer, params, 3)
    saved = optimizer.state_dict()
    try:
        loaded = _through_file(saved)
    except (pickle.UnpicklingError, TypeError, AttributeError) as error:
        raise CheckFailed(
            "expected torch.load(weights_only=True) to read the state; "
            f"it refused: {str(error).splitlines()[0][:90]}\n"
            "hint: keep tensors, numbers, strings, lists, tuples and dictionaries in state and groups"
        ) from error
    expect(same_bits(saved, loaded), "the loaded state to equal the saved one", "they differ")


@check("state.low_precision_bits", 5, strict=True)
def low_precision_bits(subject: Subject) -> None:
    """The state of bfloat16 and float16 parameters keeps dtype and bits through load_state_dict."""
    for dtype in (torch.bfloat16, torch.float16):
        params = subject.params(dtype=dtype)
        optimizer = subject.build(params)
        subject.run(optimizer, params, 3)
        twins = subject.twin(params)
        other = subject.build(twins)
        other.load_state_dict(_through_file(optimizer.state_dict()))
        for param, twin in zip(params, twins, strict=True):
            old, new = state_tensors(state_of(optimizer, param)), state_tensors(state_of(other, twin))
            for (path, before), (_, after) in zip(old, new, strict=True):
                expect(
                    before.dtype == after.dtype,
                    f"state{path} of a {dtype} parameter to stay {before.dtype}",
                    f"load_state_dict made it {after.dtype}",
                    "Optimizer.load_state_dict casts to the parameter's dtype; put the saved tensors back",
                )
                expect(same_bits(before, after), f"the bits of state{path} to survive loading", "they differ")


@check("state.deepcopy", 5)
def deepcopy(subject: Subject) -> None:
    """copy.deepcopy works before and after a step, and the copy is independent and equal."""
    _copied(subject, copy.deepcopy, "the deep copy")


@check("state.pickle", 5)
def pickled(subject: Subject) -> None:
    """pickle works before and after a step, and what comes back continues equally."""
    need("<locals>" not in subject.cls.__qualname__, "the class is local to a function and cannot be pickled")
    _copied(subject, lambda value: pickle.loads(pickle.dumps(value)), "the unpickled optimizer")


def _copied(subject: Subject, duplicate: Any, what: str) -> None:
    for before in (0, 3):
        params = subject.params()
        optimizer = subject.build(params)
        subject.run(optimizer, params, before)
        at_copy = snapshot(params)
        twins, other = duplicate((params, optimizer))
        end = subject.run(other, twins, 3, start=before)
        expect(
            same_bits(at_copy, snapshot(params)),
            f"{what} after {before} steps to leave the original parameters alone",
            "stepping it moved them",
        )
        expected = subject.run(optimizer, params, 3, start=before)
        expect(
            same_bits(end, expected),
            f"{what} after {before} steps to continue like the original",
            "their weights differ",
            "keep nothing outside state and param_groups that __setstate__ does not restore",
        )


@check("state.resume_bitwise", 6)
def resume_bitwise(subject: Subject) -> None:
    """15 steps equal 3 steps, save, load, and 12 steps, bit for bit, with hyperparameters restored."""
    _resumes(subject, torch.float32)


@check("state.resume_float64", 6, strict=True)
def resume_float64(subject: Subject) -> None:
    """Resuming is bitwise with float64 parameters too."""
    _resumes(subject, torch.float64)


@check("state.resume_low_precision", 6, strict=True)
def resume_low_precision(subject: Subject) -> None:
    """Resuming is bitwise with bfloat16 parameters too."""
    _resumes(subject, torch.bfloat16)


def _resumes(subject: Subject, dtype: torch.dtype) -> None:
    params = subject.params(dtype=dtype)
    optimizer = subject.build(params)
    subject.run(optimizer, params, 3)
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * group["lr"]
    saved, weights = _through_file(optimizer.state_dict()), snapshot(params)
    whole = subject.run(optimizer, params, 12, start=3)
    twins = subject.twin(weights)
    resumed = subject.build(twins)
    resumed.load_state_dict(saved)
    end = subject.run(resumed, twins, 12, start=3)
    gap = displacement(weights, end, whole)
    expect(
        same_bits(end, whole),
        f"a resumed {dtype} run to equal the uninterrupted one bit for bit",
        f"they differ by {gap:.1e} of the distance travelled",
        "everything a step reads must be in state or in the groups, with its dtype, counters and caches too",
    )


@check("state.restored_by_load", 6)
def restored_by_load(subject: Subject) -> None:
    """load_state_dict replaces the state of an optimizer that has already stepped."""
    params, used = subject.params(), subject.params(seed=1)
    optimizer, other = subject.build(params), subject.build(used)
    subject.run(optimizer, params, 3)
    subject.run(other, used, 5, start=50)
    other.load_state_dict(_through_file(optimizer.state_dict()))
    with torch.no_grad():
        for target, source in zip(used, params, strict=True):
            target.copy_(source)
    set_everywhere(other, "lr", optimizer.param_groups[0]["lr"])
    set_everywhere(optimizer, "lr", optimizer.param_groups[0]["lr"])
    expect(
        same_bits(subject.run(other, used, 3, start=3), subject.run(optimizer, params, 3, start=3)),
        "a used optimizer that loads a state to continue like its source",
        "something of its own past is left",
        "keep nothing that a step reads outside state and the groups",
    )

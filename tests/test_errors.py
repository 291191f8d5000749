"""One root, the built-in classes beside it, and messages that offer what there is."""

import inspect

import pytest

from vlm_pruner import errors


def test_all_errors_have_one_root():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]
    assert len(classes) == 9
    assert all(issubclass(c, errors.VlmPrunerError) for c in classes)
    assert {c.__name__ for c in classes} == set(errors.__all__) - {
        "HELP",
        "explained",
        "first_line",
        "missing_package",
        "not_compiled",
        "unknown_name",
    }


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.PlanError, ValueError),
        (errors.InputError, ValueError),
        (errors.NotFiniteError, ValueError),
        (errors.InvalidSelectionError, ValueError),
        (errors.UnsupportedModelError, TypeError),
        (errors.MissingSignalError, RuntimeError),
        (errors.PrunedCacheError, RuntimeError),
        (errors.BackendUnavailableError, ImportError),
    ],
)
def test_they_can_be_caught_as_built_in_ones(error, builtin):
    assert issubclass(error, builtin)


def test_unknown_names():
    known = ["divprune", "vlm-pruner"]
    assert "did you mean 'vlm-pruner'? Known: divprune, vlm-pruner" in errors.unknown_name("method", "vlmpruner", known)
    assert errors.unknown_name("method", "x", known) == "unknown method 'x'. Known: divprune, vlm-pruner"

import numpy as np
import pytest

from codec.gaussians import Gaussians


def some(count=5, coefficients=9):
    rng = np.random.default_rng(1)
    shapes = {
        "means": (count, 3),
        "quats": (count, 4),
        "scales": (count, 3),
        "opacities": (count,),
        "sh": (count, coefficients, 3),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(("coefficients", "degree"), [(1, 0), (4, 1), (9, 2), (16, 3)])
def test_degree_follows_from_the_coefficients(coefficients, degree):
    assert Gaussians(**some(coefficients=coefficients)).degree == degree


def test_taking_keeps_all_that_belongs_to_a_gaussian_together():
    given = some()
    taken = Gaussians(**given).take(np.array([3, 0]))
    assert len(taken) == 2
    for name, array in given.items():
        np.testing.assert_array_equal(getattr(taken, name), array[[3, 0]])


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "sh"])
def test_another_shape_type_or_value_is_refused(name):
    given = some()
    for wrong in (given[name][:-1], given[name].astype(np.float64), given[name] * np.nan):
        with pytest.raises(ValueError, match="want"):
            Gaussians(**{**given, name: wrong})


def test_a_rotation_of_length_0_is_refused():
    given = some()
    given["quats"][3] = 0
    with pytest.raises(ValueError, match="1 of 5 are 0"):
        Gaussians(**given)


def test_no_gaussians_are_a_scene_too():
    assert len(Gaussians(**some(0))) == 0


@pytest.mark.parametrize("shape", [(5, 2, 3), (5, 3)])
def test_other_counts_of_coefficients_are_refused(shape):
    with pytest.raises(ValueError, match="K in"):
        Gaussians(**{**some(), "sh": np.zeros(shape, np.float32)})

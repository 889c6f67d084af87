"""Tensors as numpy arrays and back."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy
import pytest

from edgewise.backends.tensors import ITEM_BYTES, to_array, to_tensor
from edgewise.core.content import Tensor
from edgewise.core.errors import InvalidRequest


@pytest.mark.parametrize("dtype", sorted(ITEM_BYTES))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4)])
def test_every_number_comes_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = (numpy.random.default_rng(7).random(shape) * 100).astype(dtype)
    tensor = to_tensor(array)
    back = to_array(tensor)
    assert (tensor.dtype, tensor.shape) == (dtype, shape)
    assert back.dtype == array.dtype
    assert back.shape == shape
    assert numpy.array_equal(back, array)


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(12, dtype=">i4").reshape(3, 4),
        numpy.asfortranarray(numpy.arange(12, dtype="int32").reshape(3, 4)),
        numpy.arange(24, dtype="int32").reshape(3, 8)[:, ::2] // 2,
    ],
    ids=["big-endian", "column-major", "strided"],
)
def test_bytes_are_row_major_and_little_endian_whatever_the_array_was(array: numpy.ndarray) -> None:
    assert to_tensor(array) == Tensor("int32", (3, 4), numpy.arange(12, dtype="<i4").tobytes())


def test_nan_and_infinities_stay_what_they_are() -> None:
    back = to_array(to_tensor(numpy.array([numpy.nan, numpy.inf, -numpy.inf, -0.0])))
    assert numpy.isnan(back[0])
    assert list(back[1:3]) == [numpy.inf, -numpy.inf]
    assert numpy.signbit(back[3])


TEXTS = ["", "a", "Grüße, 世界", "nul\0in\0side", "ends with nul\0", "🙂" * 300]


@pytest.mark.parametrize("dtype", [object, numpy.dtypes.StringDType()], ids=["objects", "StringDType"])
def test_strings_come_back_to_the_last_nul(dtype: Any) -> None:
    tensor = to_tensor(numpy.array([TEXTS[:3], TEXTS[3:]], dtype=dtype))
    assert (tensor.dtype, tensor.shape) == ("string", (2, 3))
    assert to_array(tensor).tolist() == [TEXTS[:3], TEXTS[3:]]


def test_fixed_width_strings_are_strings() -> None:
    assert to_array(to_tensor(numpy.array(["ab", "ç"]))).tolist() == ["ab", "ç"]


def test_string_bytes_are_length_and_utf8() -> None:
    assert to_tensor(numpy.array(["é", ""])).data == b"\x02\x00\x00\x00\xc3\xa9\x00\x00\x00\x00"


def test_the_array_belongs_to_the_caller() -> None:
    tensor = to_tensor(numpy.zeros(2, dtype="float32"))
    array = to_array(tensor)
    array[0] = 1.0
    assert to_array(tensor)[0] == 0.0


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (numpy.array([1, "secret"], dtype=object), r"tensor 'x' holds Python objects .*\(int\)"),
        (numpy.array([b"secret"]), "elements of type"),
        (numpy.array([1j]), "complex128"),
        (numpy.array(["2020-01-01"], dtype="datetime64[D]"), "datetime64"),
        (numpy.array(["secret\ud800"], dtype=object), "not valid Unicode"),
    ],
    ids=["objects", "bytes", "complex", "dates", "surrogate"],
)
def test_what_cannot_be_sent_is_refused_without_its_values(array: numpy.ndarray, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refused:
        to_tensor(array, name="x")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (Tensor("float32", (2, 2), b"secret!!"), r"float32 \[2, 2\] and needs 16 bytes, but has 8"),
        (Tensor("float32", (2,), b""), "needs 8 bytes, but has 0"),
        (Tensor("secret", (1,), b"abcd"), "unknown element type; use one of bool, int8"),
        (Tensor("object", (1,), b"abcdabcd"), "unknown element type"),
        (Tensor("int8", (-1, -4), b"abcd"), "negative extent"),
        (Tensor("int8", (0, 2**62, 2**62), b""), "a shape that numpy cannot hold"),
        (Tensor("int8", (1,) * 100, b"a"), "a shape that numpy cannot hold"),
        (Tensor("bool", (2,), b"\x01\x02"), "neither 0 nor 1"),
        (Tensor("string", (2,), b"\x06\x00\x00\x00secret"), "does not hold the 2 strings"),
        (Tensor("string", (1,), b"\x07\x00\x00\x00secret"), "does not hold the 1 strings"),
        (Tensor("string", (1,), b"\x05\x00\x00\x00secret"), "does not hold the 1 strings"),
        (Tensor("string", (1,), b"\x02\x00\x00\x00\xff\xff"), "not valid UTF-8"),
        (Tensor("string", (2**60,), b"\x00\x00\x00\x00"), "does not hold the"),
    ],
)
def test_what_does_not_fit_together_is_refused_without_its_values(tensor: Tensor, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refused:
        to_array(tensor, name="x")
    assert "tensor 'x'" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_importing_it_imports_no_numpy() -> None:
    code = "import sys, edgewise.backends.tensors; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Checks of hand-derived gradients."""

from scratchvae.gradcheck.check import assert_gradients, check_gradients
from scratchvae.gradcheck.parts import check_density, check_layer
from scratchvae.gradcheck.model import check_model
from scratchvae.gradcheck.matrix import check_matrix, check_parts
from scratchvae.gradcheck.report import GradientError, Report, Row

__all__ = ["GradientError", "Report", "Row", "assert_gradients", "check_density", "check_gradients", "check_layer", "check_matrix", "check_model", "check_parts"]

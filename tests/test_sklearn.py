"""scratchvae/sklearn: the models as estimators of scikit-learn, by its own checks."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from scratchvae.sklearn import PCA, PPCA, VAE, FactorAnalysis, LinearAutoencoder, MixtureOfGaussians

OURS = (VAE, PPCA, FactorAnalysis, PCA, LinearAutoencoder, MixtureOfGaussians)
HEYWOOD = "ignore:the noise of columns? .* has the least variance allowed:UserWarning"  # a true word on noise as data


@pytest.mark.filterwarnings(HEYWOOD)
@parametrize_with_checks([estimator() for estimator in OURS])
def test_scikit_learns_own_checks_pass_without_an_exception(estimator, check):
    check(estimator)

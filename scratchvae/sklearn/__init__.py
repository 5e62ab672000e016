"""The models of this package as estimators of scikit-learn, for tables of numbers: one datapoint per row.

    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
    from scratchvae.sklearn import VAE

    codes = make_pipeline(MinMaxScaler(clip=True), VAE(n_components=10, likelihood="bernoulli")).fit_transform(X)

`VAE` is the variational auto-encoder of Kingma & Welling, "Auto-Encoding Variational Bayes". The linear models that
lead to it are `PCA`, `LinearAutoencoder`, `PPCA` and `FactorAnalysis`. `MixtureOfGaussians` is a Bayesian mixture by
mean field. All of them take what scikit-learn's own estimators take: arrays, or data frames of pandas and polars, a y
that is ignored, `clone`, pipelines, searches over parameters, `set_output`, pickle and joblib. Arguments are checked in
`fit`, and ValueError names the one that does not fit. Nothing is computed here: each estimator hands its rows to the
model of the same name in `scratchvae.models` or `scratchvae.inference`.

Results have the precision of the rows that they are of, float32 or float64. Whole numbers become float64. A VAE
computes in the precision of the rows of `fit`. The others compute in float64, since squares halve the digits.
"""

from scratchvae.sklearn.linear import PCA, PPCA, FactorAnalysis, LinearAutoencoder
from scratchvae.sklearn.mixture import MixtureOfGaussians
from scratchvae.sklearn.vae import VAE

__all__ = ["PCA", "PPCA", "VAE", "FactorAnalysis", "LinearAutoencoder", "MixtureOfGaussians"]

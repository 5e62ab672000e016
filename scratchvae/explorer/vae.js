// The model: what the encoder's outputs say of z, and what the decoder's say of x. The equations are those of Kingma &
// Welling, "Auto-Encoding Variational Bayes"; the Python is scratchvae/inference/posteriors and …/likelihoods.

/** Return E[x|z], or E[x|z, y] of a class y, D numbers, for a code z of J numbers: `VAE.decode` for one row. */
function decode(z, y = null) {
  const { hidden, head, mean } = model.decoder;
  const output = chain(head, chain(hidden, withClass(z, y), model.weights), model.weights);
  return output.map(MEANS[mean]);
}

/**
 * Return some numbers, and behind them the C of a class y as a conditional model reads it: a 1 at y, which counts from
 * 0, among zeros. For another model C is 0, and y is null.
 */
function withClass(numbers, y) {
  const C = model.n_classes;
  if (C ? !(Number.isInteger(y) && y >= 0 && y < C) : y !== null) {
    throw new RangeError(`the class ${y} came; expected ${C ? `one of 0 to ${C - 1}` : "none"}`);
  }
  const all = new Float64Array(numbers.length + C);
  all.set(numbers);
  if (C) all[numbers.length + y] = 1;
  return all;
}

/** What each likelihood makes of its first output, pixel by pixel. */
const MEANS = {
  "sigmoid": sigmoid,  // Bernoulli (11): y = σ(logit)
  "itself": mu => mu,  // Gaussian (12), Laplace: μ, which has been through its sigmoid unless it is free
  "continuous Bernoulli": logit => logit < 0 ? meanAtMinus(-logit) : 1 - meanAtMinus(logit),
};

/** E[x] of a continuous Bernoulli at the logit -r: 1/r - e⁻ʳ/(1 - e⁻ʳ); near 0 its series ½ - Σ_n B_2n r²ⁿ⁻¹/(2n)! */
function meanAtMinus(r) {
  if (r >= 0.3) return 1 / r + Math.exp(-r) / Math.expm1(-r);
  const r2 = r * r;
  return 0.5 - r * (1 / 12 - r2 * (1 / 720 - r2 * (1 / 30240 - r2 * (1 / 1209600 - r2 / 47900160))));
}

/** Return what the encoder says of an image x, D numbers, of a class y: μ, log σ² and what else its posterior reads. */
function outputsOf(x, y) {
  const { hidden, heads } = model.encoder;
  const h = chain(hidden, withClass(x, y), model.weights);
  return heads.map(head => chain(head, h, model.weights));
}

/** Return the code of an image x, the z of ε = 0: the mean μ of q(z|x) (9), sent through the maps of a flow. */
function encode(x, y = null) {
  const outputs = outputsOf(x, y);
  const { maps } = model.encoder;
  return maps ? planar(outputs[0], outputs.at(-1), maps) : outputs[0];  // with full covariance, z = μ + L 0 = μ too
}

/**
 * Return z_K = f_K ∘ … ∘ f_1(z): planar maps z + û tanh(w·z + b), from `parameters`, which hold u, w and b of each map.
 *
 * û = u + (m(a) - a) w/‖w‖² with a = w·u, where m(a) = a for a ≥ 0 and a/(1 - a) below, so that w·û > -1: the map can
 * be inverted. See scratchvae/inference/posteriors/flow.py.
 */
function planar(z, parameters, maps) {
  const J = z.length;
  for (let k = 0; k < maps; k++) {
    const start = k * (2 * J + 1);
    const u = parameters.subarray(start, start + J);
    const w = parameters.subarray(start + J, start + 2 * J);
    const b = parameters[start + 2 * J];
    const a = Math.min(dot(w, u), 0);
    const bend = a * a / (1 - a);  // m(a) - a
    const square = dot(w, w);
    const scale = square > 0 ? bend / square : 0;  // where w is 0, û = u
    const t = Math.tanh(dot(w, z) + b);
    z = z.map((value, j) => value + (u[j] + scale * w[j]) * t);
  }
  return z;
}

/** Return the standard deviation of each latent under q(z|x), or null behind a flow, where it has no closed form. */
function spread(x, y = null) {
  if (model.encoder.maps) return null;
  const [, logVar, lower] = outputsOf(x, y);
  return logVar.map((value, j) => Math.sqrt(Math.exp(value) + squares(rowBelow(lower, j))));
}

/**
 * Return KL(q(z|x) ‖ N(0, I)) in nats, ½ Σ_j μ_j² + σ_j² - log σ_j² - 1 (appendix B), or null behind a flow.
 *
 * With full covariance L Lᵀ, Σ_j σ_j² is its trace, the sum of all L_ij², and log σ_j² is log L_jj².
 */
function rate(x, y = null) {
  if (model.encoder.maps) return null;
  const [mu, logVar, lower] = outputsOf(x, y);
  let sum = 0;
  for (let j = 0; j < mu.length; j++) {
    sum += mu[j] * mu[j] + Math.exp(logVar[j]) + squares(rowBelow(lower, j)) - logVar[j] - 1;
  }
  return sum / 2;
}

/** Return the entries L_ji, i < j, of row j of L, which `lower` lists row by row; the diagonal posterior has none. */
function rowBelow(lower, j) {
  return lower ? lower.subarray(j * (j - 1) / 2, j * (j + 1) / 2) : [];
}

/** Return Σ_j a_j b_j. */
function dot(a, b) {
  let sum = 0;
  for (let j = 0; j < a.length; j++) sum += a[j] * b[j];
  return sum;
}

/** Return Σ_j a_j². */
function squares(a) {
  return dot(a, a);
}

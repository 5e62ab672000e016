// What one does with codes: lines between two of them, draws of the prior, and their text for NumPy.

/** Return the code at t on the straight line from a to b, (1 - t) a + t b. */
function straight(a, b, t) {
  return a.map((value, j) => (1 - t) * value + t * b[j]);
}

/**
 * Return the code at t on the great circle from a to b, (sin (1 - t)Ω a + sin tΩ b)/sin Ω, Ω the angle between them.
 *
 * Codes of the prior in many dimensions lie near a sphere of radius √J; a straight line cuts through it, and this one
 * stays near it. Where a and b lie on one line through 0 there is no such circle, or there are many: it is straight.
 */
function greatCircle(a, b, t) {
  const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  const angle = Math.acos(Math.min(Math.max(cosine, -1), 1));
  if (!(Math.sin(angle) > 1e-6)) return straight(a, b, t);
  return a.map((value, j) => (Math.sin((1 - t) * angle) * value + Math.sin(t * angle) * b[j]) / Math.sin(angle));
}

/** Return n independent draws of N(0, 1): √(-2 log u) cos 2πv for uniform u and v (Box & Muller). */
function normals(n) {
  return Float64Array.from({ length: n }, () =>
    Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()));
}

/** Return a code as a line of Python. */
function asNumPy(z) {
  return `z = np.array([${Array.from(z, value => Number(value.toFixed(6))).join(", ")}])`;
}

/** Return "z₁₂" for the latent 12, as a person counts them, from 1. */
function nameOf(j) {
  return "z" + String(j + 1).replace(/\d/g, digit => "₀₁₂₃₄₅₆₇₈₉"[digit]);
}

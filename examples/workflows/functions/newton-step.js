// One step of Newton's method for a square root.
function newtonStep({ number, estimate }) {
  const next = (estimate + number / estimate) / 2;
  return { estimate: next, change: Math.abs(next - estimate) };
}

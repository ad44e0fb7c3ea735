function report({ camera, found }) {
  const all = found.flat();
  return { report: { camera, persons: all.length, frames: all.map((object) => object.frame) } };
}

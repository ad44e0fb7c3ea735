// Frames of a camera.
function capture({ camera, frames }) {
  return { frames: Array.from({ length: frames }, (_, n) => `${camera}-${n}`) };
}

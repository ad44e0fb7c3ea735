// Width and height of a picture: a plain PGM file (netpbm), as base64.
function measure({ picture }) {
  const words = atob(picture).replace(/#.*/g, '').trim().split(/\s+/);
  if (words[0] !== 'P2') throw new TypeError('the picture is no plain PGM file');
  return { width: Number(words[1]), height: Number(words[2]) };
}

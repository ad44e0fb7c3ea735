// A picture of that width: each pixel is the nearest one of the original.
function resize({ picture, width }) {
  const words = atob(picture).replace(/#.*/g, '').trim().split(/\s+/);
  const [oldWidth, oldHeight, white] = words.slice(1, 4).map(Number);
  const pixels = words.slice(4);
  const height = Math.max(1, Math.round((oldHeight * width) / oldWidth));
  const rows = [];
  for (let y = 0; y < height; y++) {
    const from = Math.floor((y * oldHeight) / height) * oldWidth;
    const row = [];
    for (let x = 0; x < width; x++) row.push(pixels[from + Math.floor((x * oldWidth) / width)]);
    rows.push(row.join(' '));
  }
  return { picture: btoa(`P2\n${width} ${height}\n${white}\n${rows.join('\n')}\n`) };
}

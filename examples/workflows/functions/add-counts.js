// Puts together what the mappers counted.
function addCounts({ counts }) {
  const all = {};
  let words = 0;
  for (const part of counts) {
    for (const [word, count] of Object.entries(part)) {
      all[word] = (all[word] ?? 0) + count;
      words += count;
    }
  }
  return { counts: all, words };
}

// How often each word stands in some lines.
function countWords({ lines }) {
  const counts = {};
  for (const word of lines.join(' ').toLowerCase().match(/[a-z']+/g) ?? []) counts[word] = (counts[word] ?? 0) + 1;
  return { counts };
}

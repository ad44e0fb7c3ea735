// Works through a list, a few items at a time, as a function does that calls a slow service for each. A timer
// stands in for the service. While it waits, the function holds no thread.
//
//   lyra deploy examples/js-batch --name batch
//   lyra invoke batch -d '{"items":["a","b","c","d"],"atOnce":2}' -v

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function work(item) {
  const begin = performance.now();
  await pause(20);
  console.log(`${item}: done after ${Math.round(performance.now() - begin)} ms`);
  return item.toUpperCase();
}

export default async function batch({ items, atOnce = 3 }) {
  const results = new Array(items.length);
  let next = 0;
  const lane = async () => {
    while (next < items.length) {
      const at = next++;
      results[at] = await work(items[at]);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, lane));
  return { results, lanes: atOnce };
}

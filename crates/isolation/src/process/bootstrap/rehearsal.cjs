// Loaded and called by bootstrap.mjs before it has its assignment: what Node.js does for the first time takes several times
// as long as the next time.
exports.handler = async (event, context) => {
  if (event.throw) throw new Error(`rehearsed ${context.getRemainingTimeInMillis()}`);
  return event;
};

// Loaded by bootstrap.mjs before it has its assignment: the first file that Node.js loads takes three times as long as
// the next one.
exports.handler = async (event) => event;

// A Node.js function: `handler` of `index.mjs`.
//
//   lyra deploy examples/node-hello --runtime nodejs
//   lyra invoke node-hello -d '{"name":"Ada"}'

export const handler = async (event, context) => {
  console.log('greeting', event);
  return { message: `Hello, ${event?.name ?? 'world'}!`, function: context.functionName };
};

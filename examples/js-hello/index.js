// The smallest useful function: an event comes in, a result goes out.
//
//   lyra deploy examples/js-hello
//   lyra invoke js-hello -d '{"name":"Ada"}'

export default function hello(event) {
  return { message: `Hello, ${event?.name ?? "world"}!` };
}

// Misbehaves in the way it is asked to. Each way ends in an error of its own, at the limits of the function,
// and no other function notices.
//
//   lyra deploy examples/js-hostile --name hostile --timeout 500ms --memory 64
//   lyra invoke hostile -d '{"how":"loop"}'

export default function hostile({ how }) {
  switch (how) {
    case "loop":
      for (;;);
    case "memory": {
      const hoard = [];
      for (;;) hoard.push(new Uint8Array(1 << 20).fill(1));
    }
    case "recursion": {
      const down = (depth) => 1 + down(depth + 1);
      return down(0);
    }
    case "never":
      return new Promise(() => setTimeout(() => {}, 3_600_000));
    default:
      return "behaves";
  }
}

// Checks an order and works out what it costs. An order that makes no sense is an error of its own kind, so
// that the caller can tell it from a bug. As a job, a bad order ends in the dead-letter list.
//
//   lyra deploy examples/js-order-total --name order-total
//   lyra invoke order-total -d '{"id":"A-1","country":"DE","lines":[{"sku":"pen","quantity":3,"cents":120}]}'

const VAT = { DE: 19, ES: 21, FR: 20, IT: 22, LU: 17 };

class InvalidOrder extends Error {
  name = "InvalidOrder";
}

function check(order) {
  if (typeof order?.id !== "string") throw new InvalidOrder("an order needs an id");
  if (!Array.isArray(order.lines) || order.lines.length === 0) {
    throw new InvalidOrder(`order ${order.id} has no lines`);
  }
  if (!(order.country in VAT)) throw new InvalidOrder(`order ${order.id}: no VAT rate for ${order.country}`);
  for (const { sku, quantity, cents } of order.lines) {
    if (!Number.isInteger(quantity) || quantity < 1) {
      throw new InvalidOrder(`order ${order.id}: quantity of ${sku} must be a whole number from 1, not ${quantity}`);
    }
    if (!Number.isInteger(cents) || cents < 0) {
      throw new InvalidOrder(`order ${order.id}: price of ${sku} must be whole cents, not ${cents}`);
    }
  }
}

export default function total(order, context) {
  console.log(`order ${order?.id}: checking, version ${context.functionVersion}`);
  check(order);
  const net = order.lines.reduce((sum, line) => sum + line.quantity * line.cents, 0);
  const vat = Math.round((net * VAT[order.country]) / 100);
  console.log(`order ${order.id}: ${order.lines.length} lines, ${net} cents net`);
  if (net > 100_000) console.warn(`order ${order.id}: unusually large`);
  return { id: order.id, net, vat, total: net + vat };
}

// What an order comes to. Small ones need nobody's approval.
function lookAtOrder({ order }) {
  return { amount: order.amount, approved: true };
}

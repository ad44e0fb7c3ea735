function refuse({ order }) {
  return { message: `order ${order.id} was refused` };
}

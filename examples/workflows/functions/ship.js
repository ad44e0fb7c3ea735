function ship({ order }) {
  return { message: `order ${order.id} is on its way` };
}

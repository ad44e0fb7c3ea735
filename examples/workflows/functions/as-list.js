// One picture as a list of pictures.
function asList({ picture }) {
  return { pictures: [picture] };
}

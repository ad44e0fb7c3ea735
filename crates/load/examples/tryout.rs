//! try
use lyra_load::{simulation::Machine, trace, Policy};
fn main() {
    let t = std::time::Instant::now();
    let settings = trace::Settings { invocations: std::env::args().nth(1).map_or(1_000_000, |a| a.parse().unwrap()), ..Default::default() };
    let trace = trace::generate(&settings).unwrap();
    println!("{:?} {:?}", t.elapsed(), trace::Summary::of(&trace));
    let t = std::time::Instant::now();
    let r = lyra_load::simulate(&trace, &Machine::default(), &Policy::default()).unwrap();
    println!("{:?} {:#?}", t.elapsed(), r);
}

//! What every service needs and none should write twice: clock, randomness, ids, tasks, shutdown,
//! telemetry, retry, timetables, freed memory, the machine's load.
//!
//! The list is closed: a new module needs a design record. This is the only crate that reads the
//! clock, the environment or randomness, or spawns tasks, so that a whole cluster can run under
//! virtual time with a seed.

pub mod clock;
pub mod ids;
pub mod load;
pub mod memory;
pub mod random;
pub mod retry;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod timetable;

pub use clock::Clock;
pub use ids::Ids;
pub use load::Load;
pub use random::Random;
pub use tasks::Tasks;
pub use timetable::Timetable;

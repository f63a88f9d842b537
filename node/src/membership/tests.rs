//! What agreement promises. `world` is the network, the disks and the operators; `chaos` breaks all of them and demands that what was
//! decided stays so; `flows` are what operators do on a good day, `forced` what they do when
//! most of the voters are gone, `founding` when some never come.

mod access;
mod chaos;
mod doubling;
mod flows;
mod forced;
mod founding;
mod world;

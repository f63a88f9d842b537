//! What agreement promises. `world` is the network, the disks and the operators; `chaos` breaks all of them and demands that what was
//! decided stays so; `flows` are what operators do on a good day.

mod chaos;
mod flows;
mod world;

//! Whether devices really read and write each other's memory: a driver's word is not enough, since some say so and give other
//! bytes.
//!
//! All ranks take part, each in its process: each writes into every peer's memory and reads what the peers wrote into its own. What
//! was found to work is remembered, pair by pair, as long as the process lives; what was not is tried again.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::driver::{Driver, Handle};
use crate::error::Error;

/// Gives this rank's bytes to all, and returns those of all ranks, in their order.
pub type Exchange<'a> = dyn FnMut(&[u8]) -> Result<Vec<Vec<u8>>, Error> + 'a;

/// Bytes that a rank writes for each peer.
const BYTES: usize = 256;

/// Devices by their identities, the own one first, that have been found to reach each other's memory.
type Pairs = HashSet<(Vec<u8>, Vec<u8>)>;

fn with_known<T>(act: impl FnOnce(&mut Pairs) -> T) -> T {
    static KNOWN: Mutex<Option<Pairs>> = Mutex::new(None);
    act(KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// Tries it out, unless all ranks remember that it works between them.
///
/// # Errors
///
/// [`Error::NoPeerAccess`], on the rank that saw it, with whose memory it was; [`Error::Driver`]; what `exchange` returns.
pub fn check<D: Driver>(
    driver: &D,
    rank: usize,
    world: usize,
    exchange: &mut Exchange<'_>,
) -> Result<(), Error> {
    // A device that cannot say which it is is remembered by nobody.
    let identity = driver.identity().unwrap_or_default().into_bytes();
    let identities = exchange(&identity)?;
    super::check_count("ranks", world, identities.len())?;
    let pairs = || identities.iter().map(|peer| (identity.clone(), peer.clone()));
    let is_known = with_known(|known| pairs().all(|pair| !pair.1.is_empty() && known.contains(&pair)));
    if exchange(&[u8::from(is_known)])?.iter().all(|answer| answer[..] == [1]) {
        return Ok(());
    }
    try_together(driver, rank, world, exchange)?;
    with_known(|known| known.extend(pairs()));
    Ok(())
}

fn try_together<D: Driver>(
    driver: &D,
    rank: usize,
    world: usize,
    exchange: &mut Exchange<'_>,
) -> Result<(), Error> {
    // Also a rank that has no memory comes to all exchanges.
    let own = driver.allocate(BYTES * world);
    let mut opened = Vec::new();
    let seen = try_out(driver, rank, world, &own, &mut opened, exchange);
    // Nobody unmaps or frees before all have looked. A rank that has failed tells the others so by coming here.
    let met = exchange(&[u8::from(seen.is_ok())]).map(|_| ());
    let closed: Vec<_> = opened.into_iter().map(|base| driver.close(base)).collect();
    let met = met.and_then(|()| exchange(&[]).map(|_| ()));
    let freed = own.map_or(Ok(()), |own| driver.free(own));
    seen.and(met)?;
    closed.into_iter().collect::<Result<(), _>>().and(freed)
}

fn try_out<D: Driver>(
    driver: &D,
    rank: usize,
    world: usize,
    own: &Result<u64, Error>,
    opened: &mut Vec<u64>,
    exchange: &mut Exchange<'_>,
) -> Result<(), Error> {
    let exported = own.clone().and_then(|own| Ok((own, driver.export(own)?)));
    // So does a rank that has no handle.
    let handles = exchange(exported.as_ref().map_or(&[][..], |(_, handle)| &handle[..]))?;
    super::check_count("ranks", world, handles.len())?;
    let written =
        exported.and_then(|(own, _)| Ok((own, write_to_all(driver, (rank, own), &handles, opened)?)));
    exchange(&[u8::from(written.is_ok())])?;
    let (own, bases) = written?;
    let mut found = vec![0; BYTES];
    for (peer, base) in bases.iter().enumerate() {
        driver.read(own + (peer * BYTES) as u64, &mut found)?;
        if found != pattern(peer, rank) {
            return Err(Error::NoPeerAccess { rank, by: peer, what: "written" });
        }
        driver.read(base + (rank * BYTES) as u64, &mut found)?;
        if found != pattern(rank, peer) {
            return Err(Error::NoPeerAccess { rank: peer, by: rank, what: "read" });
        }
    }
    Ok(())
}

/// Where each rank's memory is, after this rank has written its pattern into all of them.
fn write_to_all<D: Driver>(
    driver: &D,
    (rank, own): (usize, u64),
    handles: &[Vec<u8>],
    opened: &mut Vec<u64>,
) -> Result<Vec<u64>, Error> {
    let mut bases = Vec::with_capacity(handles.len());
    for (peer, handle) in handles.iter().enumerate() {
        let base = if peer == rank {
            own
        } else {
            let handle = Handle::try_from(&handle[..]).map_err(|_| Error::NoPeerAccess {
                rank: peer,
                by: rank,
                what: "opened",
            })?;
            let base = driver.open(&handle)?;
            opened.push(base);
            base
        };
        driver.write(base + (rank * BYTES) as u64, &pattern(rank, peer))?;
        bases.push(base);
    }
    driver.synchronize()?;
    Ok(bases)
}

/// What `by` writes for `into`.
fn pattern(by: usize, into: usize) -> Vec<u8> {
    (0..BYTES).map(|at| (at ^ (37 * by + 101 * into + 13)) as u8).collect()
}

//! Real values of what is said about members and buckets.

use driftless_node::configurations::{Marks, Ready};
use driftless_node::membership::{Ballot, Candidate, DecidedRecord, Letter, News, StagedChanges};
use driftless_proto::membership::{
    AccessState, CandidateState, Change, ClusterAnswer, ClusterCommand, ClusterState, Decided, Founding, MemberState,
    Moving, Past, Plan, PlannedNode, Record, Recovery, Staged, StoreId,
};
use driftless_proto::{AccessChange, AgreedAccess, Denial, Grant, Role, Serial};
use driftless_ring::{Member, NodeId};

use super::samples::topology;

/// Version 2 of the cluster of the samples.
fn record() -> Record {
    let founding = topology();
    let ring = founding.ring().next(founding.ring().spec()).expect("the same members");
    let topology = founding.with_ring(ring).expect("as before");
    let ids: Vec<NodeId> = topology.ring().members().iter().map(|member| member.id).collect();
    let stores = ids.iter().map(|id| (*id, store(*id))).collect();
    let (voters, lost) = (ids[..3].to_vec(), vec![(NodeId(9), StoreId(9))]);
    let (by, reason) = ("a".to_owned(), "founded by its file".to_owned());
    Record::new(7, founding.digest(), topology, stores, voters, lost, Vec::new(), by, reason).expect("it fits")
}

fn store(node: NodeId) -> StoreId {
    StoreId(u128::from(node.0) << 64 | 1)
}

fn ballot() -> Ballot {
    Ballot { round: 3, node: 0xa, nonce: u64::MAX }
}

fn moving() -> Moving {
    Moving { taking: 192, taken: 61, giving: 64, given: 1, keys: 5_287, bytes: 1 << 30, rate: 1 << 24, keys_left: 9 }
}

/// Whatever an operator may change.
pub fn changes() -> Vec<Change> {
    let bucket = topology().buckets()[1].clone();
    let mut all = vec![
        Change::Join { name: "e".to_owned(), zone: Some("far".to_owned()), weight: Some(2) },
        Change::Leave { name: "b".to_owned(), lost: true },
        Change::Replace { name: "c".to_owned(), with: "e".to_owned(), force: false },
        Change::Set { name: "a".to_owned(), weight: Some(3), zone: None },
        Change::CreateBucket(bucket.clone()),
        Change::SetBucket(bucket),
        Change::DropBucket { name: "lww".to_owned() },
        Change::DoublePartitions,
    ];
    all.extend(access_changes().into_iter().map(Change::SetAccess));
    all
}

fn access_changes() -> Vec<AccessChange> {
    let (name, carts) = ("web".to_owned(), topology().buckets()[1].name.clone());
    let grant = Grant { role: Role::Writer, buckets: Some([carts].into()) };
    vec![
        AccessChange::Default(Some(Role::Reader)),
        AccessChange::Grant { name: name.clone(), grant },
        AccessChange::Revoke { name: name.clone() },
        AccessChange::Deny(Denial::Client(name)),
        AccessChange::Deny(Denial::Node("n9".to_owned())),
        AccessChange::Allow(Denial::Serial(Serial::of_bytes(&[0x5a, 0, 0xc3]))),
    ]
}

/// With something of everything in it.
fn access() -> AgreedAccess {
    let serial = AccessChange::Deny(Denial::Serial(Serial::of_bytes(&[0x5a, 0, 0xc3])));
    let is_news = |change: &AccessChange| !matches!(change, AccessChange::Revoke { .. } | AccessChange::Allow(_));
    let changes = access_changes().into_iter().filter(is_news).chain([serial]);
    changes.fold(AgreedAccess::default(), |access, change| access.with(&change).expect("it fits"))
}

/// What operators say.
pub fn commands() -> Vec<ClusterCommand> {
    let mut all = vec![
        ClusterCommand::State,
        ClusterCommand::Clear,
        ClusterCommand::Plan,
        ClusterCommand::Commit { plan: "24dd3d40".to_owned() },
        ClusterCommand::Cancel,
        ClusterCommand::History,
        ClusterCommand::Apply(changes().pop().expect("there are some")),
        ClusterCommand::Recover { lost: vec!["b".to_owned(), "c".to_owned()], force: true },
        ClusterCommand::Access,
        ClusterCommand::Found { without: vec!["b".to_owned()], yes: true },
    ];
    all.extend(changes().into_iter().map(ClusterCommand::Stage));
    all
}

/// What they are told.
pub fn answers() -> Vec<ClusterAnswer> {
    let staged = Staged { version: 2, changes: vec!["e joins".to_owned()] };
    let node = PlannedNode {
        name: "e".to_owned(),
        zone: "far".to_owned(),
        now: 0,
        then: 192,
        gains: 192,
        loses: 0,
        bytes_in: 1 << 30,
        bytes_out: 0,
    };
    let member = MemberState {
        name: "a".to_owned(),
        address: "a.test:7400".to_owned(),
        zone: String::new(),
        weight: 1,
        stays: true,
        is_heard: true,
        is_whole: true,
        is_lost: false,
        ready: 2,
        closed: 2,
        left: 1,
        moving: moving(),
    };
    let candidate =
        CandidateState { name: "e".to_owned(), address: "e.test:7400".to_owned(), zone: "far".to_owned(), weight: 2 };
    let state = ClusterState {
        version: 2,
        digest: 5,
        is_agreed: true,
        forced_on: None,
        unfinished: vec![1],
        read_version: 1,
        staged: staged.clone(),
        voters: vec!["a".to_owned()],
        members: vec![member],
        candidates: vec![candidate],
    };
    let plan = Plan {
        name: "24dd3d40".to_owned(),
        base: 2,
        version: 3,
        changes: staged.changes.clone(),
        nodes: vec![node],
        slots_moved: 192,
        slots_minimum: 192,
        slots: 768,
        spread: (256, 256),
        zones: (1, 2),
        warnings: vec!["weights from 1 to 9".to_owned()],
    };
    let past = Past {
        version: 2,
        digest: 5,
        forced_on: Some(1),
        members: vec!["a".to_owned()],
        by: "a".to_owned(),
        reason: "founded by its file".to_owned(),
    };
    vec![
        ClusterAnswer::State(Box::new(state)),
        ClusterAnswer::Staged(staged),
        ClusterAnswer::Plan(Box::new(plan)),
        ClusterAnswer::Decided(Decided { version: 3, by: vec!["a".to_owned()], reason: "e joins".to_owned() }),
        ClusterAnswer::History(vec![past]),
        ClusterAnswer::Recovery(Recovery {
            base: 7,
            version: 1000,
            lost: vec!["b".to_owned()],
            voters: vec!["a".to_owned()],
            warnings: vec!["what only it holds is given up".to_owned()],
        }),
        ClusterAnswer::Access(Box::new(AccessState { version: 3, access: access() })),
        ClusterAnswer::Founding(Founding {
            without: vec!["b".to_owned()],
            by: vec!["a".to_owned(), "c".to_owned()],
            voters: vec!["a".to_owned()],
            warnings: vec!["what only it holds is missing".to_owned()],
        }),
    ]
}

/// What machines of the members say to each other.
pub fn letters() -> Vec<Letter> {
    let record = record();
    let node = record.voters[0];
    let decided = DecidedRecord { record: record.clone(), ballot: ballot(), accepted_by: record.voters.clone() };
    let news = News {
        version: 2,
        digest: record.digest(),
        settled: 1,
        staged: Some(StagedChanges { base: 2, serial: 4, by: node, changes: changes() }),
        marks: vec![(node, Marks { store: Some(store(node)), ready: Ready::of(2), closed: 2, left: 1 })],
        moving: moving(),
        sender: Candidate { member: Member::new("a", "a.test:7400"), store: store(node) },
    };
    vec![
        Letter::News(Box::new(news)),
        Letter::Want { after: 1 },
        Letter::Records { settled: 1, records: vec![decided] },
        Letter::Prepare { slot: 3, parent: record.digest(), ballot: ballot() },
        Letter::Promise {
            slot: 3,
            ballot: ballot(),
            accepted: Some((ballot(), Box::new(record.clone()))),
            store: store(node),
        },
        Letter::Nack { slot: 3, promised: ballot() },
        Letter::Accept { ballot: ballot(), record: Box::new(record.clone()) },
        Letter::Accept { ballot: ballot(), record: Box::new(record.with_access(access())) },
        Letter::Accepted { slot: 3, ballot: ballot(), store: store(node) },
    ]
}

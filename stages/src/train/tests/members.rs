//! Members of a gang among themselves.

use super::state::State;
use super::team::Team;
use super::*;

#[test]
fn whoever_comes_takes_the_state_of_another_and_begins_nowhere_else() {
    let fresh = State { weights: vec![0.0; 5], moments: vec![vec![0.0; 5]], ..State::default() };
    let far = |step: u64| State { step, position: step, weights: vec![step as f32; 5], ..fresh.clone() };
    // Who has begun, and how far.
    for steps in [[Some(7), None, None], [None, Some(3), Some(3)], [Some(4), Some(5), None], [None, Some(0), None]] {
        let states = ring::together(3, |rank, gang| {
            let mut team = Team::meet(&gang, &Cancel::default(), 8).unwrap();
            let mut state = steps[rank].map(far);
            let begin = || panic!("nobody reads a checkpoint while another has a state");
            team.align(&mut state, &fresh, begin).unwrap().unwrap();
            state.unwrap()
        });
        let farthest = steps.iter().flatten().max().unwrap();
        for state in states {
            assert_eq!((state.step, &state.weights), (*farthest, &vec![*farthest as f32; 5]), "{steps:?}");
        }
    }
    // Nobody has: all begin, in the same place.
    let states = ring::together(2, |_, gang| {
        let mut state = None;
        Team::meet(&gang, &Cancel::default(), 8).unwrap().align(&mut state, &fresh, || Ok(far(9))).unwrap().unwrap();
        state.unwrap().step
    });
    assert_eq!(states, [9, 9]);
}

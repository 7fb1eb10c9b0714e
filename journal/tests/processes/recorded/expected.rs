//! What must be there after a loss of power, as the recorded child said it. It reads no file.

/// What is known of a journal at one moment of a recording.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Expected {
    /// The last opening that was said to have come about; 0 before the first.
    epoch: u64,
    /// Steps that were acknowledged, or shown after an opening.
    steps: u64,
    /// Steps beyond, which were begun and not acknowledged.
    tried: Vec<u64>,
    aside: Aside,
}

/// Whether the journal was put aside, and with how many steps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
enum Aside {
    #[default]
    No,
    UnderWay,
    Done(u64),
}

impl Expected {
    /// Takes in a line of the child.
    pub(crate) fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("the child says only numbers");
        match words[0] {
            "opened" => (self.epoch, self.steps, self.tried) = (number(1), number(2), Vec::new()),
            "trying" => self.tried.push(number(1)),
            "committed" => {
                self.steps = number(1);
                self.tried.retain(|tried| *tried > self.steps);
            }
            "putting" => self.aside = Aside::UnderWay,
            "put" => *self = Self { aside: Aside::Done(self.steps), ..Self::default() },
            other => panic!("the child said {other}"),
        }
    }

    fn may_hold(&self, steps: u64) -> bool {
        steps == self.steps || self.tried.contains(&steps)
    }

    /// Compares it with what was found. Says whether something that was not acknowledged was there.
    pub(crate) fn compare(&self, found: &str) -> Result<bool, String> {
        let wrong = || Err(format!("{found}; expected {self:?}"));
        let words: Vec<&str> = found.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let aside: Vec<u64> =
            (0..words.len()).filter(|at| words[*at] == "aside").filter_map(|at| number(at + 1)).collect();
        let (Some(epoch), Some(steps)) = (number(1), number(2)) else { return wrong() };
        let as_it_was = words[0] == "found" && epoch > self.epoch && self.may_hold(steps);
        let anew = epoch == 1 && steps == 0;
        let right = match &self.aside {
            Aside::No => as_it_was && aside.is_empty(),
            // Whole at one of the two places, or at both. What is cut off in the middle is refused until it is put aside once
            // more, and then there may be another folder, with marks that belong to the first.
            Aside::UnderWay => {
                let kept = |steps: &u64| self.may_hold(*steps);
                (as_it_was && aside.iter().all(kept)) || (anew && aside.iter().any(kept))
            }
            Aside::Done(old) => as_it_was && aside == [*old],
        };
        if right { Ok(steps > self.steps) } else { wrong() }
    }
}

//! The class of every row of a training part.

/// Classes by row, in as few bytes as there are classes for: one a row up to 256 of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    Few(Vec<u8>),
    Many(Vec<u32>),
}

impl Default for Labels {
    fn default() -> Self {
        Labels::Few(Vec::new())
    }
}

impl Labels {
    /// Adds a row's.
    pub(super) fn push(&mut self, class: u32) {
        match self {
            Labels::Many(classes) => classes.push(class),
            Labels::Few(classes) => match u8::try_from(class) {
                Ok(class) => classes.push(class),
                Err(_) => {
                    *self = Labels::Many(classes.iter().map(|class| u32::from(*class)).collect());
                    self.push(class);
                }
            },
        }
    }

    /// A row's.
    pub(super) fn get(&self, row: usize) -> usize {
        match self {
            Labels::Few(classes) => usize::from(classes[row]),
            Labels::Many(classes) => classes[row] as usize,
        }
    }

    /// The same rows, whose classes have other numbers.
    pub(super) fn renamed(self, names: &[u32]) -> Self {
        match self {
            // There are no more classes than before.
            Labels::Few(mut classes) => {
                classes.iter_mut().for_each(|class| *class = names[usize::from(*class)] as u8);
                Labels::Few(classes)
            }
            Labels::Many(mut classes) => {
                classes.iter_mut().for_each(|class| *class = names[*class as usize]);
                Labels::Many(classes)
            }
        }
    }
}

impl FromIterator<u32> for Labels {
    fn from_iter<I: IntoIterator<Item = u32>>(classes: I) -> Self {
        let mut labels = Self::default();
        classes.into_iter().for_each(|class| labels.push(class));
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_classes_can_be_kept_and_renamed() {
        for most in [2, 256, 257, 70_000] {
            let classes: Vec<u32> = (0..most).rev().collect();
            let labels: Labels = classes.iter().copied().collect();
            assert_eq!(matches!(labels, Labels::Few(_)), most <= 256);
            let renamed = labels.clone().renamed(&classes);
            for (row, class) in classes.iter().enumerate() {
                assert_eq!((labels.get(row), renamed.get(row)), (*class as usize, row));
            }
        }
    }
}

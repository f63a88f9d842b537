//! Whether the dump that is being loaded is whole: it begins and ends with a line that says so.

/// Watches the lines of a file for the marks of dumps; there are none in a file that was made otherwise, and several in dumps
/// that were put together.
#[derive(Default)]
pub(crate) struct Marks {
    /// Records since the first line of a dump, if it has not ended.
    records: Option<u64>,
    problems: Vec<String>,
}

impl Marks {
    /// The first line of a dump.
    pub(crate) fn begin(&mut self) {
        self.cut_off();
        self.records = Some(0);
    }

    /// A record, or a line that was one.
    pub(crate) fn record(&mut self) {
        if let Some(records) = &mut self.records {
            *records += 1;
        }
    }

    /// The last line of a dump.
    pub(crate) fn end(&mut self, records: u64, complete: bool) {
        match self.records.take() {
            None => self.problems.push("the file has the last line of a dump and not its first".to_owned()),
            Some(found) if found != records => {
                self.problems.push(format!("the dump had {records} records when it was written, and has {found} now"));
            }
            Some(_) => {}
        }
        if !complete {
            self.problems.push("when this was dumped keys may have been missing; the dump says so itself".to_owned());
        }
    }

    /// What is wrong with it, at the end of the file.
    pub(crate) fn problems(mut self) -> Vec<String> {
        self.cut_off();
        self.problems
    }

    fn cut_off(&mut self) {
        if let Some(records) = self.records.take() {
            self.problems.push(format!(
                "this dump is not whole: after {records} records its last line, {{\"dump\": \"ends\", …}}, is missing"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(watch: impl FnOnce(&mut Marks)) -> Vec<String> {
        let mut marks = Marks::default();
        watch(&mut marks);
        marks.problems()
    }

    #[test]
    fn a_dump_that_was_cut_off_is_not_taken_for_a_whole_one() {
        let cut = problems(|marks| {
            marks.begin();
            marks.record();
        });
        assert!(cut.len() == 1 && cut[0].contains("not whole: after 1 records"), "{cut:?}");
        let lacking = problems(|marks| {
            marks.begin();
            marks.end(1, true);
        });
        assert!(lacking.len() == 1 && lacking[0].contains("had 1 records"), "{lacking:?}");
        let doubted = problems(|marks| {
            marks.begin();
            marks.end(0, false);
        });
        assert!(doubted.len() == 1 && doubted[0].contains("may have been missing"), "{doubted:?}");
        let first_of_two = problems(|marks| {
            marks.begin();
            marks.begin();
            marks.end(0, true);
        });
        assert_eq!(first_of_two.len(), 1, "{first_of_two:?}");
    }

    #[test]
    fn whole_dumps_and_other_files_have_no_problems() {
        let two_dumps = |marks: &mut Marks| {
            for _ in 0..2 {
                marks.begin();
                marks.record();
                marks.end(1, true);
            }
        };
        assert_eq!(problems(two_dumps), Vec::<String>::new());
        assert_eq!(problems(Marks::record), Vec::<String>::new());
    }
}

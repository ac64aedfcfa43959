//! One sign in front of negative numbers: the true minus for people at a terminal, the hyphen-minus in what other programs
//! read, for which `−1` is no number.

/// `text` as it is fit for its reader. Only a sign in front of a number at the beginning of a word is touched: neither
/// `784-400-2`, `1e-3` and `2026-12-01` nor the minus of `−ELBO` is one. What follows an option, as in `--z -1,2`, is to be
/// pasted and stays as a shell needs it.
pub fn suited(text: &str, terminal: bool) -> String {
    let sign = if terminal { '−' } else { '-' };
    let mut suited = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    let (mut before, mut word, mut last_word) = ('\n', String::new(), String::new());
    while let Some(letter) = letters.next() {
        let begins = before.is_whitespace() || "([{|=±".contains(before);
        let number = letters.peek().is_some_and(|next| next.is_ascii_digit() || *next == '.');
        let is_sign = matches!(letter, '-' | '−') && begins && number;
        let for_a_shell = before.is_whitespace() && last_word.starts_with("--");
        suited.push(if is_sign && !for_a_shell { sign } else { letter });
        if letter.is_whitespace() {
            last_word = std::mem::take(&mut word);
        } else {
            word.push(letter);
        }
        before = letter;
    }
    suited
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_sign_that_their_reader_understands() {
        let text = "log p(z) -2.5 at (-0.1, −.5): ±-3\n-1 784-400-2 of 001-digits, 1e-3, −ELBO, −L_5 −7, a=-2";
        let people = "log p(z) −2.5 at (−0.1, −.5): ±−3\n−1 784-400-2 of 001-digits, 1e-3, −ELBO, −L_5 −7, a=−2";
        assert_eq!(suited(text, true), people);
        assert_eq!(suited(people, false), text.replace("−.5", "-.5").replace("−7", "-7"));
    }

    #[test]
    fn what_is_to_be_pasted_stays_as_it_is() {
        let line = "elbo decode run --z -0.1,0.5\n";
        assert_eq!(suited(line, true), line);
    }
}

//! The command `elbo`; see [`elbo::cli`].

fn main() -> std::process::ExitCode {
    elbo::cli::main()
}

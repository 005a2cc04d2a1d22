//! temporary
use clap::Parser;
fn main() -> anyhow::Result<()> {
    let cli = pipeline_app::cli::Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let config = pipeline_app::config::load(&cli)?;
    println!("{}", config.mode.why);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let last = pipeline_app::status::LastMinute::default();
        let handle = pipeline_app::run::start(&config, &last).await?;
        let stopper = handle.clone();
        tokio::spawn(async move {
            let _ = tokio::signal::ctrl_c().await;
            stopper.stop();
        });
        let shower = handle.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                let p = shower.progress();
                println!(
                    "{:?} read {} wm {:?} late {:?} sinks {:?} ckpt {:?}",
                    p.state,
                    p.read,
                    p.watermark,
                    p.late,
                    p.sinks
                        .iter()
                        .map(|s| (s.name.clone(), s.rows, s.trouble.clone()))
                        .collect::<Vec<_>>(),
                    p.checkpoint
                );
            }
        });
        let r = handle.wait().await;
        println!("{:#?}", handle.progress());
        r.map_err(|e| anyhow::anyhow!("{e}"))
    })
}

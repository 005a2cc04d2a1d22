import org.apache.flink.configuration.Configuration;

/** What both jobs run with. */
class Settings {
    static final int CORES = 2;

    static Configuration common() {
        Configuration settings = new Configuration();
        settings.setString("pipeline.object-reuse", "true");
        settings.setString("execution.buffer-timeout.interval", "100 ms");
        settings.setString("taskmanager.memory.network.min", "256m");
        settings.setString("taskmanager.memory.network.max", "256m");
        settings.setString("taskmanager.numberOfTaskSlots", String.valueOf(CORES));
        settings.setString("parallelism.default", String.valueOf(CORES));
        settings.setString("state.backend.type", "hashmap");
        settings.setString("execution.checkpointing.storage", "filesystem");
        settings.setString("execution.checkpointing.dir", "file://" + System.getenv("BENCH_FOLDER") + "/checkpoints");
        settings.setString("execution.checkpointing.interval", "10s");
        settings.setString("execution.checkpointing.mode", "EXACTLY_ONCE");
        // A failure is to be seen, not to be survived.
        settings.setString("restart-strategy.type", "none");
        return settings;
    }
}

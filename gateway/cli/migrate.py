"""`parley migrate`: bring the database's schema up to date, without serving."""

from gateway.cli.context import Config, DataDir, beside, out, run, settings_of


def migrate(data_dir: DataDir = None, config: Config = None) -> None:
    """Bring the database's schema up to date. `parley serve` does so by itself; this is for deployments that do it beforehand."""
    settings = settings_of(config, data_dir=data_dir).settings

    async def command() -> None:
        async with beside(settings):
            out.print("The schema is up to date.")

    run(command)

from das3d_cli.cli import main

main()

from gpe.cli import main

main()
